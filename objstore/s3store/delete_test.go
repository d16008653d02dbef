package s3store

import (
	"encoding/xml"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"coffer/objstore"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A server that keeps objects as files cannot remove the marker of a directory in which
// there is something yet, and says no more than 500.
func TestMarkersAreDeletedAfterWhatLiesBelow(t *testing.T) {
	var order []string
	b := against(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		var doc struct {
			Object []struct{ Key string }
		}
		assert.NoError(t, xml.NewDecoder(r.Body).Decode(&doc))
		order = nil
		for _, o := range doc.Object {
			order = append(order, o.Key)
		}
		for i, key := range order {
			below := func(other string) bool { return strings.HasPrefix(other, key) }
			if slices.ContainsFunc(order[i+1:], below) {
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
		}
		_, _ = w.Write([]byte("<DeleteResult/>"))
	})
	errs := b.Delete(t.Context(), objstore.Ref{Key: "d/"}, objstore.Ref{Key: "d/a"}, objstore.Ref{Key: "d/e/"}, objstore.Ref{Key: "d/e/f"})
	require.NoError(t, errors.Join(errs...))
	require.Equal(t, []string{"d/e/f", "d/e/", "d/a", "d/"}, order)
}
