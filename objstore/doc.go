// Package objstore describes an encrypted object store as flat key spaces.
//
// A [Store] holds buckets, a [Bucket] maps keys to immutable object versions.
// Nothing here knows about directories, file handles or a kernel: package fs
// decides what POSIX means over these calls, package cache keeps bytes near,
// and the packages below this one move or hide them:
//
//	s3store      S3 through aws-sdk-go-v2
//	cse/message  the messages that client-side encryption makes of objects
//	cse/keyring  the keys that wrap the data keys of those messages
//	emulator     an S3 server for development and tests, with fault injection
//	storetest    the conformance suite that every Bucket passes
//
// The package imports only the standard library, so that every layer can name
// its types. Implementations wrap one another (a decorator takes a Bucket and
// is one), which is why stored and visible sizes are separate fields and why
// a size may be unknown until it is asked for.
package objstore
