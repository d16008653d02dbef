package emulator

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRuleMatches(t *testing.T) {
	type call struct{ verb, bucket, key string }
	gets := func(n int) []call {
		out := make([]call, n)
		for i := range out {
			out[i] = call{"GetObject", "b", "dir/k"}
		}
		return out
	}
	for _, tc := range []struct {
		name  string
		fault Fault
		calls []call
		want  []bool
	}{
		{"everything", Fault{}, gets(2), []bool{true, true}},
		{"verb", Fault{Verb: "PutObject"}, []call{{"PutObject", "b", "k"}, {"GetObject", "b", "k"}}, []bool{true, false}},
		{"bucket", Fault{Bucket: "b"}, []call{{"PutObject", "c", "k"}, {"PutObject", "b", "k"}}, []bool{false, true}},
		{"pattern", Fault{KeyPattern: "dir/*"}, []call{{"PutObject", "b", "dir/a"}, {"PutObject", "b", "dir/a/b"}, {"PutObject", "b", "x"}}, []bool{true, false, false}},
		{"nth counts only what matches", Fault{Verb: "GetObject", Nth: 2}, append([]call{{"PutObject", "b", "k"}}, gets(3)...), []bool{false, false, true, false}},
		{"count", Fault{Count: 2}, gets(4), []bool{true, true, false, false}},
		{"never by chance", Fault{Probability: 1e-12, Seed: 1}, gets(3), []bool{false, false, false}},
		{"always by chance", Fault{Probability: 1}, gets(3), []bool{true, true, true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRule(tc.fault)
			var got []bool
			for _, c := range tc.calls {
				got = append(got, r.hit(c.verb, c.bucket, c.key))
			}
			require.Equal(t, tc.want, got)
		})
	}
}

func TestProbabilityIsSeeded(t *testing.T) {
	sequence := func(seed uint64) (hits []int) {
		r := newRule(Fault{Probability: 0.25, Seed: seed})
		for i := range 1000 {
			if r.hit("GetObject", "b", "k") {
				hits = append(hits, i)
			}
		}
		return hits
	}
	require.Equal(t, sequence(1), sequence(1))
	require.NotEqual(t, sequence(1), sequence(2))
	require.InDelta(t, 250, len(sequence(3)), 60)
}

func TestFaultsJoin(t *testing.T) {
	var fr faultRules
	fr.add([]Fault{{Verb: "GetObject", Delay: 2, Status: 500}, {Delay: 3, Code: "SlowDown", FlipBit: true}, {Verb: "PutObject", Reset: true}})
	require.Equal(t, Fault{Delay: 5, Status: 500, FlipBit: true}, fr.strike("GetObject", "b", "k"))
	fr.clear()
	require.Equal(t, Fault{}, fr.strike("GetObject", "b", "k"))
}

func TestFaultFailures(t *testing.T) {
	for _, tc := range []struct {
		f      Fault
		status int
		code   string
	}{
		{Fault{Status: 500}, 500, "InternalError"},
		{Fault{Status: 503}, 503, "SlowDown"},
		{Fault{Code: "ExpiredToken"}, http.StatusBadRequest, "ExpiredToken"},
		{Fault{Status: 507, Code: "Mine"}, 507, "Mine"},
		{Fault{Status: 502}, 502, "Bad Gateway"},
	} {
		require.NoError(t, tc.f.Validate())
		e := tc.f.failure()
		require.Equal(t, tc.status, e.Status)
		require.Equal(t, tc.code, e.Code)
	}
	require.Nil(t, Fault{}.failure())
	for _, bad := range []Fault{{KeyPattern: "[a"}, {Nth: -1}, {Probability: 2}, {Status: 200}, {Code: "NoSuchCode"}} {
		require.Error(t, bad.Validate(), "%+v", bad)
	}
}
