// Package cse encrypts what goes to a store and decrypts what comes from it: a
// decorator of [objstore.Store] and [objstore.Bucket] for stores without server-side
// encryption, and for users who do not trust the store.
//
// Every object that is written is one message of the AWS Encryption SDK; FORMAT.md says
// which, package message how it looks. The bucket inside sees ciphertext, who uses
// this one sees plaintext with its sizes:
//
//	        Create, Write, Commit          Get
//	plaintext |                             ^
//	          v                             |
//	       Sealer  <- data keys -> Opener + Layout   (opened: by key and ETag)
//	          |        keyring              ^
//	          v                             | ranges of whole frames
//	        objstore.Bucket: header | frame | frame | ... | final frame
//
// A frame is what can be authenticated, so a range of plaintext costs the frames that
// it touches. How long an object is, its final frame proves: [Bucket.Prove] before a
// size is believed, and every Get by itself. Sizes that Head and List tell are hints:
// from the metadata, from what was opened before, by this process or by another
// ([Sizes]), or from what is declared ([Declared]).
//
// What other programs have encrypted as a whole, with one tag, is read whole before a byte
// of it is decrypted, and in blocks of 1 MiB after that: messages without frames, and
// objects of the Amazon S3 Encryption Client, of package s3ec.
//
// What is never encrypted: keys, metadata, and the empty objects whose key ends in a
// slash, which are the markers of directories.
package cse
