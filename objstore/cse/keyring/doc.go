// Package keyring wraps and unwraps the data keys of encrypted messages.
//
// A [Ring] is what a user has configured: one or several keys. For a new
// message it makes a data key and wraps it under each of them, so that any one
// of them reads the message; of a message that is there it finds a data key
// that one of its keys can unwrap.
//
//	Ring.Wrap   -> Envelope{data key, context, EDKs} -> message.NewSealer
//	ParseHeader -> Ring.Unwrap -> data key           -> message.NewOpener
//
// A [Cache] stands before a Ring and asks it seldom.
//
// The keys are those of the AWS Encryption SDK's specification (framework/
// raw-aes-keyring.md, raw-rsa-keyring.md, aws-kms/aws-kms-keyring.md), so that
// its implementations unwrap what is wrapped here and the other way round:
//
//	          provider ID   provider info                     ciphertext
//	raw AES   namespace     name | u32 128 | u32 12 | IV 12   AES-GCM, AAD = encryption context
//	raw RSA   namespace     name                              RSA-OAEP, or PKCS #1 v1.5 to read
//	AWS KMS   aws-kms       ARN of the key                    KMS's, bound to the encryption context
//
// What a key proves differs. Whoever wraps under an AES key holds it, and KMS
// asks for a permission; under an RSA key everybody wraps who has the public
// one, the store included, and nothing ties the context to it. See
// [Key.Authenticates].
//
// A [Volume] is a raw AES key for many: it lies in a file, wrapped for each of
// its recipients, who can change without any message doing so.
//
// [Load] makes a Ring of a file. No passphrase is asked for, and callers bring
// the client of KMS.
package keyring
