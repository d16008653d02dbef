package s3store

import (
	"encoding/xml"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// decodeListing is what scanListing is compared with.
func decodeListing(text string) (*listing, error) {
	dec, start, err := rootOf([]byte(text))
	if err != nil {
		return nil, err
	}
	if start.Name.Local != "ListBucketResult" {
		return nil, fmt.Errorf("root %q", start.Name.Local)
	}
	var l listing
	return &l, dec.DecodeElement(&l, &start)
}

// pageText is a page of n keys as a store writes it.
func pageText(n int) string {
	var b strings.Builder
	b.WriteString(xml.Header + `<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bucket</Name><Prefix>p/</Prefix>` +
		`<KeyCount>3</KeyCount><MaxKeys>1000</MaxKeys><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>` +
		`<NextContinuationToken>1/2+3==</NextContinuationToken>`)
	for i := range n {
		fmt.Fprintf(&b, `<Contents><Key>p/a&amp;b&#38;c&#x26;d-%07d</Key><LastModified>2026-11-28T05:57:40.693Z</LastModified>`+
			`<ETag>&#34;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><Size>%d</Size><Owner><ID>me</ID><DisplayName/></Owner>`+
			`<StorageClass>STANDARD</StorageClass></Contents>`, i, i)
	}
	b.WriteString(`<CommonPrefixes><Prefix>p/x/</Prefix></CommonPrefixes></ListBucketResult>`)
	return b.String()
}

// What stores write is scanned, and not left to the slow way.
func TestScanListing(t *testing.T) {
	const root = `<ListBucketResult>`
	for name, text := range map[string]string{
		"page":              pageText(3),
		"nothing":           root + `</ListBucketResult>`,
		"indented":          "<?xml version='1.0' encoding='utf-8'?>\n" + root + "\n\t<Contents>\n  <Key> a </Key>\n</Contents>\n</ListBucketResult>\n",
		"empty elements":    root + `<Contents><Key>a</Key><ETag/></Contents><Contents/><NextMarker/></ListBucketResult>`,
		"what is not known": root + `<New><Deep>x&lt;<Deeper/></Deep>y</New><Contents><Key>a</Key><New>1</New></Contents></ListBucketResult>`,
		"not ASCII":         root + `<NextMarker>caf&#233;/日本</NextMarker></ListBucketResult>`,
	} {
		got, ok := scanListing([]byte(text))
		if !ok {
			t.Errorf("%s: left alone", name)
			continue
		}
		want, err := decodeListing(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v\nwant %+v, %v", name, got, want, err)
		}
	}
	for name, text := range map[string]string{
		"an error":         `<Error><Code>SlowDown</Code></Error>`,
		"cut off":          pageText(3)[:700],
		"cut off in a tag": root + `<Contents><Ke`,
		"a comment":        root + `<!-- --></ListBucketResult>`,
		"CDATA":            root + `<NextMarker><![CDATA[x]]></NextMarker></ListBucketResult>`,
		"a prefix":         root + `<s3:NextMarker>a</s3:NextMarker></ListBucketResult>`,
		"crossed":          root + `<Contents><Key>a</Contents></Key></ListBucketResult>`,
		"no entity":        root + `<NextMarker>&nbsp;</NextMarker></ListBucketResult>`,
		"control":          root + "<NextMarker>\x01</NextMarker></ListBucketResult>",
		"control entity":   root + "<NextMarker>&#1;</NextMarker></ListBucketResult>",
		"no UTF-8":         root + "<NextMarker>\xff</NextMarker></ListBucketResult>",
		"other encoding":   `<?xml version="1.0" encoding="latin1"?>` + root + `</ListBucketResult>`,
		"size":             root + `<Contents><Size>big</Size></Contents></ListBucketResult>`,
		"text":             root + `x</ListBucketResult>`,
		"":                 "",
	} {
		if got, ok := scanListing([]byte(text)); ok {
			t.Errorf("%s: taken for %+v", name, got)
		}
	}
}

// FuzzScanListing compares it with encoding/xml: what it reads it reads alike.
func FuzzScanListing(f *testing.F) {
	f.Add(pageText(2))
	f.Add(`<ListBucketResult><IsTruncated>true</IsTruncated><A>&gt;<B/></A><CommonPrefixes><Prefix>x/</Prefix></CommonPrefixes></ListBucketResult>`)
	f.Fuzz(func(t *testing.T, text string) {
		got, ok := scanListing([]byte(text))
		if !ok {
			return
		}
		if want, err := decodeListing(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q:\n got %+v\nwant %+v, %v", text, got, want, err)
		}
	})
}

func BenchmarkScanListing(b *testing.B) {
	text := []byte(pageText(1000))
	b.SetBytes(int64(len(text)))
	b.Run("scan", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, ok := scanListing(text); !ok {
				b.Fatal("left alone")
			}
		}
	})
	b.Run("encoding-xml", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := decodeListing(string(text)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
