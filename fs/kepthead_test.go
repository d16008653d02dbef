package fs

import (
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"coffer/objstore"
)

// fill sets every field of a struct to something of its own.
func fill(t *testing.T, v reflect.Value, n *int) {
	for i := range v.NumField() {
		f := v.Field(i)
		*n++
		switch {
		case f.Type() == reflect.TypeFor[time.Time]():
			f.Set(reflect.ValueOf(time.Unix(1e9, int64(*n)).UTC()))
		case f.Kind() == reflect.Struct:
			fill(t, f, n)
		case f.Kind() == reflect.String:
			f.SetString(fmt.Sprint("text ", *n))
		case f.Kind() == reflect.Bool:
			f.SetBool(true)
		case f.Kind() == reflect.Int64:
			f.SetInt(int64(*n) << 40)
		case f.Kind() == reflect.Map:
			f.Set(reflect.ValueOf(map[string]string{"name": "value", "": "", "long": strings.Repeat("x", 300)}))
		default:
			t.Fatalf("a field of type %v", f.Type())
		}
	}
}

// TestKeptHead: nothing of an object is lost, whatever fields it will have.
func TestKeptHead(t *testing.T) {
	var full objstore.Object
	fill(t, reflect.ValueOf(&full).Elem(), new(int))
	full.IsPrefix = false // which no object is
	negative := objstore.Object{Entry: objstore.Entry{Size: -1, LastModified: time.Unix(-5, 0).UTC()}}
	for _, o := range []objstore.Object{full, {}, negative} {
		if got := keepHead(o).object(o.Key); !reflect.DeepEqual(got, o) {
			t.Errorf("got %+v\nwant %+v", got, o)
		}
	}
}

// heapInUse returns the bytes of the heap that are reachable.
func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkKeptHeads reports what a remembered HEAD costs.
func BenchmarkKeptHeads(b *testing.B) {
	const n = headsRemembered / 2
	var h *heads
	var bytes float64
	for b.Loop() {
		h = newHeads()
		before := heapInUse()
		for i := range n {
			o := objstore.Object{
				Entry: objstore.Entry{Key: fmt.Sprintf("data/set/file-%07d.jpg", i), ETag: objstore.ETag(fmt.Sprintf("%032x", i)), Size: 1, SizeKnown: true, LastModified: time.Now()},
				Meta:  map[string]string{"mode": "33188", "uid": "1000", "gid": "1000", "mtime": fmt.Sprint("17958454", i)},
			}
			o.Encryption.Mode, o.Headers.ContentType, o.Checksum = objstore.ModeSSES3, "application/octet-stream", "CRC64NVME:AAAAAAAAAAA="
			h.remember("bucket", o)
		}
		bytes = float64(heapInUse()-before) / n
	}
	runtime.KeepAlive(h)
	b.ReportMetric(bytes, "bytes/object")
}
