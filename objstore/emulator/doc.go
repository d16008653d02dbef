// Package emulator is an S3 server for development and tests.
//
// It speaks S3 over HTTP on loopback, verifies every signature, keeps what it
// is given across restarts and kill -9, and really encrypts what it says it
// encrypts. It runs inside a test by [New] and [Server.Listen], or as the
// command "coffer emulator". It also records every request and injects faults,
// so that a client can be shown a store that fails in a chosen place.
//
// It is a development tool. There is one account, whose buckets can be made to
// look like another's or like those of another region ([Server.SetTraits]), no
// policies and no lifecycle rules; what is archived is restored at once. The key that encrypts the data lies beside the data: encryption
// here shows that a client asked for it, it does not protect against somebody
// who can read the directory.
//
// # Layout on disk
//
//	DIR/format                     the layout's version
//	DIR/lock                       flock of the one server that uses DIR
//	DIR/kek                        the key-encryption key: 32 bytes in hex, 0600
//	DIR/kms.json                   the key service's keys and aliases
//	DIR/tls/                       the server's certificate and its key
//	DIR/tmp/                       files being written; emptied by New
//	DIR/buckets/NAME/bucket.json   creation time, versioning, encryption rule
//	DIR/buckets/NAME/meta/HH/HASH-VERSION.json
//	                               one object version or delete marker
//	DIR/buckets/NAME/data/HH/ID    the bytes of one segment
//	DIR/buckets/NAME/uploads/ID/   upload.json and one NNNNN.json a part
//
// HASH is the SHA-256 of the key, so a key may hold any characters; HH, its
// first two digits, spreads the files over 256 directories.
//
// An object's bytes are one segment, or several when it was uploaded in parts
// and is encrypted. A plaintext segment is the object's bytes and nothing
// else, and a plaintext object is always one segment, so grep over DIR finds
// what is not encrypted. An encrypted segment is a row of frames of 64 KiB,
// each sealed by AES-256-GCM under the segment's own data key; that key lies
// in the metadata, wrapped by the key-encryption key or, for SSE-C, by the key
// of the client, of which nothing but a salted check is kept, or, for SSE-KMS,
// by a key of the object's own that lies there sealed by the key service. Under
// DSSE-KMS every frame is sealed twice. Plaintext of an object
// that is to be encrypted is never in any file, temporary files and parts
// included.
//
// # Key service
//
// The server speaks the AWS KMS API too, on the same address: a POST to "/"
// with an X-Amz-Target. Keys are symmetric; their material lies in kms.json,
// wrapped by the key-encryption key. A ciphertext names its key and the version
// of the material, so a rotation leaves it readable, and is bound to its
// encryption context. In faults and in the log the verbs are "kms:Decrypt" and
// so on.
//
// # Crashes
//
// A file is written under tmp and renamed to its place, data first and then
// the metadata that names it: the rename of the metadata is the moment at
// which an object exists. A process killed at any instant therefore leaves the
// old object or the new one; New removes what nothing refers to. This needs no
// fsync, since a killed process does not take the page cache along. To survive
// a loss of power as well set Config.Fsync.
//
// # Memory
//
// Bodies stream to and from disk. The metadata of every object is kept in
// memory, some 600 bytes for each, and read back from the JSON files by New:
// 100,000 objects take a second or two to open, 1,000,000 are bearable.
//
// # Dialects
//
// A dialect is a row of named behaviours (see dialect.go):
//
//	aws    every bucket encrypts by SSE-S3 unless its rule says otherwise;
//	       replies carry x-amz-server-side-encryption as Amazon S3's do
//	liar   accepts bucket encryption and SSE headers with 200, returns the
//	       bucket's rule, repeats the header in the reply to the write, and
//	       stores plaintext; HEAD and GET show no encryption
//	nosse  ignores SSE headers and answers ?encryption with 501
//	minio  encrypts what is asked for; keys of the key service have plain
//	       names; replies to Create, Complete and Copy are silent about it
//	scality    encrypts buckets by x-amz-scal-server-side-encryption or
//	       ?encryption; SSE-C is 501; no conditional writes, no checksums but
//	       Content-MD5, keys of 915 bytes
//	scality74  the same before ?encryption and the SSE header were known
//
// SSE-C needs TLS as on Amazon S3, or Config.AllowSSECOverHTTP. No bucket
// blocks it unless its encryption configuration says so.
//
// # Where it is not Amazon S3
//
// The key service has symmetric keys only, without policies, grants, tags or
// automatic rotation; a ThrottlingException of its own reaches S3's clients as
// 400. There are no ACLs (the headers are ignored), policies, lifecycle, object
// lock, replication, storage classes that archive, session tokens, SigV2 or
// browser POST. A PUT without a checksum gets none computed. Where Amazon
// leaves the matter open, a common prefix is listed if it sorts after the
// marker. A query name that no verb knows is 501 NotImplemented unless it
// begins with "x-"; in the dialects minio and scality such a PUT overwrites the
// object, as those servers do.
//
// # Locks
//
// No lock of a server or bucket is held while a body moves.
//
//	Server.making   held by CreateBucket over the making of directories
//	Server.mu       the bucket table; memory only, a leaf
//	keyService.changing  held by a change of keys over the writing of kms.json
//	keyService.mu   keys and aliases; memory only, a leaf
//	bucket.gate     read-held by a commit, write-held by DeleteBucket
//	bucket.keys     one stripe of mutexes per key hash, held by a commit over
//	                the rename of one small metadata file: the check of a
//	                condition and the rename must be one step
//	bucket.mu       the index and the bucket's settings; memory only, a leaf
//	bucket.pins     who reads which version; memory only, a leaf below bucket.mu
//	upload.commit   held by Complete and Abort of one upload, over the joining
//	                of its parts: a second Complete waits for the first
//	upload.mu       the parts of one upload; memory only, a leaf
//
// They are taken in the order upload.commit, gate, keys, then one leaf.
package emulator
