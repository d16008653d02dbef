// Package interop has only tests: messages of Coffer are read by the official
// libraries of the AWS Encryption SDK, and theirs by Coffer.
//
// Each library stands behind an oracle, a small program in oracle/ that
// .ci/setup installs beside the other tools. It lives for the whole run, reads
// requests from its standard input, one line of JSON each, and answers each
// with one line:
//
//	{"op": "version"}
//	{"op": "encrypt", "in": PATH, "out": PATH, "keyrings": [...],
//	 "suite": "0x0478", "frame": 4096, "context": {...}, "policy": NAME}
//	{"op": "decrypt", "in": PATH, "out": PATH, "keyrings": [...], "policy": NAME}
//
// Suite, frame length and commitment policy are the library's own defaults
// where they are absent; with "block": true the message has no frames, which
// Python alone can write. Of several keyrings the first makes the data key, and
// any of them unwraps it:
//
//	{"type": "raw-aes", "namespace": "n", "name": "k", "key": HEX, "itsOrder": false}
//	{"type": "raw-rsa", "namespace": "n", "name": "k", "padding": "oaep-sha256",
//	 "public": PEM, "private": PEM}
//
// The answer has "library", or "suite" and "context" of the message, or
// "error".
package interop
