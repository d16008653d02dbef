// Package s3ec reads objects of the Amazon S3 Encryption Client: the pure part
// of it. It does no I/O and knows no store and no KMS; it takes metadata, keys
// and bytes, and returns bytes. Nothing is written in this format.
//
// The format is that of github.com/awslabs/aws-encryption-sdk-specification,
// s3-encryption/. An object is one ciphertext of AES-256-GCM with its tag at
// the end, and how its data key is wrapped stands in its user metadata, the
// envelope:
//
//	|<----------------- S ----------------->|<- 16 ->|
//	+----------+----------+-----+-----------+--------+
//	| 1 MiB    | 1 MiB    | ... | the rest  |  tag   |
//	+----------+----------+-----+-----------+--------+
//
//	            V2                             V3
//	 data key   x-amz-key-v2                   x-amz-3
//	 wrap       x-amz-wrap-alg                 x-amz-w
//	            AES/GCM, RSA-OAEP-SHA1,        02, 22,
//	            kms+context                    12
//	 cipher     x-amz-cek-alg                  x-amz-c
//	            AES/GCM/NoPadding              115, which is 0x0073
//	 context    x-amz-matdesc                  x-amz-t (KMS), x-amz-m (else)
//	 key        the data key                   HKDF-SHA512(salt x-amz-i, data key)
//	 IV         x-amz-iv, 12 bytes             12 bytes 01
//	 AAD        none                           00 73
//	 committed  no                             x-amz-d
//
// V1, AES-CBC and the older wraps authenticate nothing, or not enough, and are
// refused. So are instruction files, which hold the data key in an object of
// their own: whoever can write that object can have another key used.
//
// # Reading
//
// One tag covers the whole object, so that no range of it can be trusted by
// itself: CTR, which is how GCM encrypts, gives some plaintext for whatever
// bytes there are. So all of the object is read once, in order and in
// constant memory, before a byte of it is decrypted:
//
//	Parse -> Envelope.UnwrapAES, UnwrapRSA or UnwrapKMS -> NewVerifier -> Verifier.Write ... -> Verifier.Finish
//	      -> Verified.Open, for any block and in any order
//
// A [Verified] exists only for an object whose tag is right. It keeps a SHA-256
// of each block of 1 MiB, and opens no block that has another one: bytes may be
// fetched again later from a store that is not trusted.
//
// What the tag proves depends on the wrap. An object whose data key is wrapped
// by RSA can be replaced by whoever has the public key. And in V2 two data
// keys can be made to fit one object, giving two plaintexts: V3 commits to one.
package s3ec
