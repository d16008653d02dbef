// Package storetest holds one conformance suite for every [objstore.Store].
//
// [Run] puts a store through everything that package objstore promises, as
// subtests. The same suite runs over the emulator, over real servers that
// [StartMinIO], [StartVersityGW] and [StartRadosGW] spawn on loopback, and over decorators: the
// toy decorator [Resize] changes the size of every object, as client-side
// encryption does, and so keeps the interfaces honest.
//
// [RunModes] puts one mode of server-side encryption through every verb and
// returns rows for the table of all servers, modes and verbs.
//
// What a server does differently is never hidden in the suite's code: each
// accepted difference has a name and a reason in [Differences].
//
// [Sealed] looks at all that a store is sent by client-side encryption, for the one thing
// that it must never do. [Proxy] records requests to real servers, and spoils some.
//
// The package is for tests only. It imports package testing, starts processes
// and calls Fatal; no program links it.
package storetest
