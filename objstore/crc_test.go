package objstore

import (
	"hash/crc32"
	"hash/crc64"
	"math/rand/v2"
	"testing"
)

// sumOf is the sum of p as the standard library makes it.
func sumOf(c CRC, p []byte) uint64 {
	switch c.Name {
	case "CRC32":
		return uint64(crc32.ChecksumIEEE(p))
	case "CRC32C":
		return uint64(crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)))
	}
	return crc64.Checksum(p, crc64.MakeTable(c.Poly))
}

func TestCRCOfKnownText(t *testing.T) {
	// The check values of the catalogue of CRCs: the sum of "123456789".
	want := map[string]uint64{"CRC32": 0xcbf43926, "CRC32C": 0xe3069283, "CRC64NVME": 0xae8b14860a799888}
	for _, c := range CRCs {
		if got := sumOf(c, []byte("123456789")); got != want[c.Name] {
			t.Errorf("%s is %#x, want %#x", c.Name, got, want[c.Name])
		}
		if got := c.Join(sumOf(c, []byte("1234")), sumOf(c, []byte("56789")), 5); got != want[c.Name] {
			t.Errorf("%s joined is %#x, want %#x", c.Name, got, want[c.Name])
		}
		// A long stretch of zero bytes, the slow way and the quick one.
		zeros := make([]byte, 1<<20)
		if got, want := c.Join(want[c.Name], sumOf(c, zeros), 1<<20), sumOf(c, append([]byte("123456789"), zeros...)); got != want {
			t.Errorf("%s over 1 MiB of zeros is %#x, want %#x", c.Name, got, want)
		}
	}
}

func FuzzCRC(f *testing.F) {
	f.Add([]byte("abc"), uint16(1))
	f.Add([]byte{}, uint16(0))
	f.Fuzz(func(t *testing.T, p []byte, at uint16) {
		cut := min(int(at), len(p))
		for _, c := range CRCs {
			whole := sumOf(c, p)
			if got := c.Join(sumOf(c, p[:cut]), sumOf(c, p[cut:]), int64(len(p)-cut)); got != whole {
				t.Errorf("%s of %d and %d bytes joined is %#x, want %#x", c.Name, cut, len(p)-cut, got, whole)
			}
			if got, ok := c.Parse(c.Text(whole)); !ok || got != whole {
				t.Errorf("%s %#x is written %q and read %#x, %v", c.Name, whole, c.Text(whole), got, ok)
			}
		}
	})
}

func TestCRCOfObject(t *testing.T) {
	for _, tt := range []struct {
		checksum string
		whole    bool
		want     string // name, "" for none
	}{
		{"CRC32:y/Q5Jg==", true, "CRC32"},
		{"CRC32:y/Q5Jg==", false, ""},
		{"CRC32:y/Q5Jg==-2", true, ""},
		{"CRC32:y/Q5", true, ""},
		{"CRC64NVME:rosUhgp5mIg=", true, "CRC64NVME"},
		{"SHA256:y/Q5Jg==", true, ""},
		{"", true, ""},
	} {
		c, _, ok := Object{Checksum: tt.checksum, ChecksumOfWhole: tt.whole}.CRC()
		if ok != (tt.want != "") || ok && c.Name != tt.want {
			t.Errorf("CRC of %q, %v: %q, %v", tt.checksum, tt.whole, c.Name, ok)
		}
	}
}

func BenchmarkCRCJoin(b *testing.B) {
	for _, c := range CRCs {
		b.Run(c.Name, func(b *testing.B) {
			sum := rand.Uint64() >> (64 - c.Bits)
			for b.Loop() {
				sum = c.Join(sum, 1, 1<<20)
			}
		})
	}
}
