package e2e

import (
	"testing"

	"coffer/objstore/storetest"
)

// seen is one request that reached a store, whoever recorded it.
type seen struct {
	verb, bucket, key string
	body              int64
	status            int
}

// watchedStore is a store of which every request is known.
type watchedStore struct {
	env      []string
	requests func() []seen
}

// watchedEmulator runs the emulator in this process; its own log is the record.
func watchedEmulator(t testing.TB, dialect string) watchedStore {
	t.Helper()
	s := startEmulator(t, dialect)
	return watchedStore{s.Env(), func() []seen {
		var out []seen
		for _, r := range s.Requests() {
			out = append(out, seen{r.Verb, r.Bucket, r.Key, r.BodyBytes, r.Status})
		}
		return out
	}}
}

// watchedVersityGW spawns versitygw, behind a proxy that records.
func watchedVersityGW(t testing.TB) watchedStore {
	t.Helper()
	p := storetest.StartProxy(t, storetest.StartVersityGW(t))
	return watchedStore{p.Server().Env(), func() []seen {
		var out []seen
		for _, r := range p.Requests() {
			out = append(out, seen{r.Verb, r.Bucket, r.Key, r.BodyBytes, r.Status})
		}
		return out
	}}
}
