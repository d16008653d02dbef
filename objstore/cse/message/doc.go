// Package message reads and writes messages of the AWS Encryption SDK, frame
// by frame: the pure part of client-side encryption. It does no I/O, knows no
// keyring and no store; it takes bytes and a data key, and returns bytes.
//
// The format is that of the AWS Encryption SDK specification
// (github.com/awslabs/aws-encryption-sdk-specification, data-format/ and
// client-apis/). Its numbers are big-endian. What Coffer writes of it is said
// in ../FORMAT.md.
//
//	|<------ H ------>|<---- F+32 ---->|<---- F+32 ---->|<-- n+40 -->|<- S ->|
//	+-----------------+----------------+----------------+------------+-------+
//	|     header      |    frame 0     |    frame 1     |final frame |footer |
//	+-----------------+----------------+----------------+------------+-------+
//
// Every frame is sealed by AES-GCM of its own, so that a range of the
// plaintext can be read, and trusted, without the rest. Frame i begins at
// H + i*(F+32) and its sequence number is i+1: the API counts from 0 as
// offsets do, the format counts from 1. The final frame holds the last n
// bytes, 0 <= n <= F; it alone says where the message ends. The footer is a
// signature, in the suites that have one.
//
//	frame         u32 sequence number | IV 12 | ciphertext F | tag 16
//	final frame   FF FF FF FF | u32 sequence number | IV 12 | u32 n | ciphertext n | tag 16
//	footer        u16 length | ECDSA signature, DER
//
// # Headers
//
//	format 2                           format 1
//	 1  version 02                      1  version 01
//	 2  suite                           1  type 80
//	32  message ID                      2  suite
//	 2  A, length of the context       16  message ID
//	 A  encryption context              2+A, 2..., 1: as format 2
//	 2  number of EDKs                  4  reserved, 0
//	..  EDKs                            1  IV length, 12
//	 1  content type                    4  F
//	 4  F                              12  IV
//	32  commitment                     16  tag
//	16  tag
//
// The context is u16 count, then key and value by pairs, sorted; an EDK
// (encrypted data key) is provider, provider info and ciphertext. Each of
// these has its u16 length before it. The content type is 02 for frames, and
// 01 for one block, where F is 0.
//
// # Reading and writing
//
//	ParseHeader -> (a keyring unwraps the data key) -> NewOpener -> Opener.Locate, Opener.Open
//	(a keyring makes a data key) -> NewSealer -> Sealer.Header, Sealer.Seal, Sealer.SealFinal
//
// An [Opener] exists only for a header that is authentic, and the [Layout]
// that [Opener.Locate] returns is proved by the final frame; one that
// [Profile.ForStored] returns is a guess. A [Sealer] is one message: it makes
// the message ID and seals each frame once, so that no mistake of a caller uses
// a nonce twice.
package message
