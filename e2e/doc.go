// Package e2e tests the built program: real mounts, real servers, real
// programs on the mount. It has no code of its own, only tests; each file is
// one subject.
//
// The tests need /dev/fuse and the servers that "make test" installs. With
// COFFER_REQUIRE_SERVERS=1, which "make test" sets, a missing part fails;
// without, it is a loud skip.
package e2e
