package storetest

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"testing"

	"github.com/minio/minio-go/v7"
)

func TestProxyRecordsAndSpoils(t *testing.T) {
	p := StartProxy(t, StartVersityGW(t))
	roundTrip(t, p.Server())
	c, ctx := client(t, p.Server()), t.Context()

	var puts []ProxyRequest
	for _, r := range p.Requests() {
		if r.Verb == "PutObject" {
			puts = append(puts, r)
		}
	}
	if len(puts) != 1 || puts[0].Bucket != "conf-round" || puts[0].Key != "dir/key" || puts[0].Status != http.StatusOK ||
		puts[0].BodyBytes < 65536 || !slices.Contains(puts[0].Headers, "authorization") {
		t.Errorf("recorded %+v; want one PutObject of conf-round/dir/key with at least 65536 bytes", puts)
	}
	p.ResetRequests()
	if n := len(p.Requests()); n != 0 {
		t.Errorf("%d requests after the reset", n)
	}

	get := func() ([]byte, error) {
		o, err := c.GetObject(ctx, "conf-round", "dir/key", minio.GetObjectOptions{})
		if err != nil {
			return nil, err
		}
		defer o.Close()
		return io.ReadAll(o)
	}
	only := func(verb string, e ProxyEffect) {
		p.Inject(func(r ProxyRequest) ProxyEffect {
			if r.Verb == verb {
				return e
			}
			return ProxyEffect{}
		})
	}
	only("GetObject", ProxyEffect{Status: http.StatusForbidden, Code: "AccessDenied"})
	if _, err := get(); minio.ToErrorResponse(err).Code != "AccessDenied" {
		t.Errorf("get with an injected 403: %v", err)
	}
	only("GetObject", ProxyEffect{TruncateBody: 1000})
	if data, err := get(); err == nil || len(data) > 1000 {
		t.Errorf("get with a body cut at 1000: %d bytes, %v", len(data), err)
	}
	// A lost reply: the client sees a broken connection, the server has it.
	only("PutObject", ProxyEffect{LoseReply: true})
	core := minio.Core{Client: client(t, p.Server())}
	body := bytes.NewReader([]byte("committed"))
	if _, err := core.PutObject(ctx, "conf-round", "lost", struct{ io.Reader }{body}, 9, "", "", minio.PutObjectOptions{}); err == nil {
		t.Error("a put whose reply is lost succeeded")
	}
	p.Inject(nil)
	if o, err := c.StatObject(ctx, "conf-round", "lost", minio.StatObjectOptions{}); err != nil || o.Size != 9 {
		t.Errorf("object of the lost reply: %d bytes, %v", o.Size, err)
	}
	if _, err := get(); err != nil {
		t.Errorf("get after the faults: %v", err)
	}
}
