package keyring

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"

	"coffer/objstore/cse/message"
	"coffer/objstore/cse/s3ec"
)

// s3Key is a Key that opens envelopes of the Amazon S3 Encryption Client, too. These
// have no names of keys in them, so that every key of the kind is tried.
type s3Key interface {
	Key
	// wrapsS3 is how such a key wraps.
	wrapsS3() s3ec.Wrap
	// unwrapS3 returns the data key of an envelope with that wrap.
	unwrapS3(context.Context, *s3ec.Envelope) (message.DataKey, error)
}

var (
	_ s3Key = (*RawAES)(nil)
	_ s3Key = (*RawRSA)(nil)
	_ s3Key = (*AWSKMS)(nil)
)

// UnwrapS3 returns the data key of an object of the Amazon S3 Encryption Client, and the
// key that unwrapped it. The error is a [*NoKeyError] unless ctx has ended.
func (r *Ring) UnwrapS3(ctx context.Context, e *s3ec.Envelope) (message.DataKey, Key, error) {
	failed := []error(nil)
	for _, m := range r.members {
		k, ok := m.Key.(s3Key)
		if !ok || k.wrapsS3() != e.Wrap() {
			continue
		}
		if len(failed) == maxAttempts {
			failed = append(failed, fmt.Errorf("%d keys were tried, there may be more", maxAttempts))
			break
		}
		err := r.refuse(k)
		var key message.DataKey
		if err == nil {
			key, err = k.unwrapS3(ctx, e)
		}
		if err == nil {
			return key, k, nil
		}
		if ctx.Err() != nil {
			return message.DataKey{}, nil, ctx.Err()
		}
		failed = append(failed, fmt.Errorf("%s: %w", k, err))
	}
	return message.DataKey{}, nil, &NoKeyError{Failed: failed,
		Needed: []string{fmt.Sprintf("a key without a name that wraps by %s", e.Wrap())}}
}

func (k *RawAES) wrapsS3() s3ec.Wrap { return s3ec.WrapAES }

func (k *RawAES) unwrapS3(_ context.Context, e *s3ec.Envelope) (message.DataKey, error) {
	return e.UnwrapAES(k.aead())
}

func (k *RawRSA) wrapsS3() s3ec.Wrap { return s3ec.WrapRSA }

// unwrapS3 decrypts the data key. Its padding is that of the format, whatever is
// configured for messages.
func (k *RawRSA) unwrapS3(_ context.Context, e *s3ec.Envelope) (message.DataKey, error) {
	if k.private == nil {
		return message.DataKey{}, errors.New("only its public key is there, which does not decrypt")
	}
	return e.UnwrapRSA(k.private())
}

func (k *AWSKMS) wrapsS3() s3ec.Wrap { return s3ec.WrapKMS }

// unwrapS3 asks KMS to decrypt the data key with the context of the envelope.
func (k *AWSKMS) unwrapS3(ctx context.Context, e *s3ec.Envelope) (message.DataKey, error) {
	return e.UnwrapKMS(nil, func(ciphertext []byte, pairs map[string]string) ([]byte, error) {
		out, err := k.client.Decrypt(ctx, &kms.DecryptInput{
			KeyId: &k.id, CiphertextBlob: ciphertext, EncryptionContext: pairs, GrantTokens: k.grants,
		})
		if err != nil {
			return nil, kmsError("decrypt a data key", k.id, err)
		}
		if arn := aws.ToString(out.KeyId); !k.Matches(message.EDK{Provider: kmsProvider, Info: arn}) {
			return nil, fmt.Errorf("KMS decrypted under %.200q, which is another key", arn)
		}
		return out.Plaintext, nil
	})
}
