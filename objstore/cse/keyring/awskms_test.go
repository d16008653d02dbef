package keyring_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"

	"coffer/objstore/cse/keyring"
	"coffer/objstore/cse/message"
	"coffer/objstore/emulator"
)

// keyService is the emulator with a client that does not retry.
func keyService(t *testing.T) (*emulator.Server, *kms.Client) {
	t.Helper()
	s, err := emulator.New(emulator.Config{Dir: t.TempDir(), AccessKeyID: "AKIATESTTESTTESTTEST", SecretAccessKey: "not a secret"})
	require.NoError(t, err)
	require.NoError(t, s.Listen("127.0.0.1:0"))
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s, kms.New(kms.Options{
		BaseEndpoint: aws.String(s.Endpoint()), Region: "us-east-1", RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider("AKIATESTTESTTESTTEST", "not a secret", ""),
	})
}

func kmsKey(t *testing.T, c keyring.KMSClient, id string) keyring.Key {
	t.Helper()
	k, err := keyring.NewAWSKMS(c, id)
	require.NoError(t, err)
	return k
}

// A key is the same key by whatever name, and what was written by one name is
// read by the others.
func TestNamesOfKMSKeys(t *testing.T) {
	s, c := keyService(t)
	arn, err := s.CreateKMSKey("mine")
	require.NoError(t, err)
	place, id, _ := strings.Cut(arn, "key/")
	other, err := s.CreateKMSKey("other")
	require.NoError(t, err)
	volume := contextOf(t, map[string]string{"coffer-vol": "v"})
	names := []string{arn, id, "alias/mine", place + "alias/mine"}
	for _, writer := range names {
		msg := encrypt(t, ringOf(t, keyring.Member{Key: kmsKey(t, c, writer)}), volume, "secret")
		h, err := message.ParseHeader(msg)
		require.NoError(t, err)
		require.Equal(t, int64(1024), h.Bytes())
		require.Equal(t, "aws-kms", h.EDKs[0].Provider)
		require.Equal(t, arn, h.EDKs[0].Info)
		require.Equal(t, volume, h.Context, "the pad is no concern of KMS")
		for _, reader := range names {
			got, by, err := decrypt(ringOf(t, keyring.Member{Key: kmsKey(t, c, reader), DecryptOnly: true}), msg, message.Context{})
			require.NoError(t, err, "%s by %s", writer, reader)
			require.Equal(t, "secret", string(got))
			require.True(t, by.Authenticates())
		}
		// Other keys are not asked for it, where their names say that they are
		// others.
		_, otherID, _ := strings.Cut(other, "key/")
		for reader, asked := range map[string]int{other: 0, otherID: 0, "alias/other": 1, place + "alias/other": 1,
			strings.Replace(place, "us-east-1", "eu-west-1", 1) + "alias/other": 0} {
			s.ResetRequests()
			_, _, err := decrypt(ringOf(t, keyring.Member{Key: kmsKey(t, c, reader), DecryptOnly: true}), msg, message.Context{})
			var no *keyring.NoKeyError
			require.ErrorAs(t, err, &no, reader)
			require.ErrorContains(t, err, `encrypted for aws-kms "`+arn+`"`)
			require.Len(t, s.Requests(), asked, reader)
		}
	}
}

// KMS says why it does not answer, and the error keeps that.
func TestKMSThatRefuses(t *testing.T) {
	s, c := keyService(t)
	arn, err := s.CreateKMSKey("mine")
	require.NoError(t, err)
	r := ringOf(t, keyring.Member{Key: kmsKey(t, c, arn)})
	context := contextOf(t, map[string]string{"k": "v"})
	e, err := r.Wrap(t.Context(), context)
	require.NoError(t, err)
	unwrap := func() error {
		_, _, err := r.Unwrap(t.Context(), message.Committed, e.Context, e.EDKs)
		return err
	}
	wrap := func() error { _, err := r.Wrap(t.Context(), context); return err }
	requireCode := func(err error, code string) {
		t.Helper()
		var api smithy.APIError
		require.True(t, errors.As(err, &api), "%v", err)
		require.Equal(t, code, api.ErrorCode())
		require.ErrorContains(t, err, "aws-kms "+arn)
	}
	require.NoError(t, s.DenyKMS(arn, true))
	requireCode(wrap(), "AccessDeniedException")
	requireCode(unwrap(), "AccessDeniedException")
	require.NoError(t, s.DenyKMS(arn, false))
	require.NoError(t, s.DisableKMSKey(arn))
	requireCode(wrap(), "DisabledException")
	requireCode(unwrap(), "DisabledException")
	require.NoError(t, s.EnableKMSKey(arn))
	s.Inject(emulator.Fault{Verb: "kms:Decrypt", Status: 400, Code: "ThrottlingException"})
	requireCode(unwrap(), "ThrottlingException")
	s.ClearFaults()
	require.NoError(t, s.RotateKMSKey(arn))
	require.NoError(t, unwrap())
	_, _, err = r.Unwrap(t.Context(), message.Committed, contextOf(t, map[string]string{"k": "w"}), e.EDKs)
	requireCode(err, "InvalidCiphertextException")
}

// A message for a KMS key and an RSA key is read without the KMS, where the
// RSA key is tried first.
func TestKMSAndRSA(t *testing.T) {
	s, c := keyService(t)
	arn, err := s.CreateKMSKey("mine")
	require.NoError(t, err)
	pair, far := rawRSA(t, "rsa", keyring.OAEPSHA256, nil, rsaKey()), kmsKey(t, c, arn)
	msg := encrypt(t, ringOf(t, keyring.Member{Key: far}, keyring.Member{Key: pair}), message.Context{}, "secret")
	require.NoError(t, s.DenyKMS(arn, true))
	for _, keys := range [][]keyring.Key{{pair, far}, {far, pair}} {
		_, by, err := decrypt(ringOf(t, keyring.Member{Key: keys[0]}, keyring.Member{Key: keys[1]}), msg, message.Context{})
		require.NoError(t, err)
		require.Equal(t, pair, by)
	}
}

// lying is a KMS that answers for another key, or for none.
type lying struct{ keyring.KMSClient }

func (lying) Encrypt(context.Context, *kms.EncryptInput, ...func(*kms.Options)) (*kms.EncryptOutput, error) {
	return &kms.EncryptOutput{KeyId: aws.String("alias/mine"), CiphertextBlob: []byte("c")}, nil
}

func (lying) Decrypt(context.Context, *kms.DecryptInput, ...func(*kms.Options)) (*kms.DecryptOutput, error) {
	return &kms.DecryptOutput{KeyId: aws.String("arn:aws:kms:r:1:key/2"), Plaintext: make([]byte, 32)}, nil
}

func TestAnswersOfKMSAreChecked(t *testing.T) {
	k := kmsKey(t, lying{}, "alias/mine")
	_, err := k.Wrap(t.Context(), message.GenerateDataKey(message.Committed), message.Context{})
	require.ErrorContains(t, err, `KMS encrypted under "alias/mine", which is not the ARN of a key`)
	e := message.EDK{Provider: "aws-kms", Info: "arn:aws:kms:r:1:key/1"}
	require.True(t, k.Matches(e))
	_, err = k.Unwrap(t.Context(), message.Committed, message.Context{}, e)
	require.ErrorContains(t, err, `KMS decrypted under "arn:aws:kms:r:1:key/2"`)
	require.False(t, k.Matches(message.EDK{Provider: "aws-kms-rsa", Info: e.Info}))
	_, err = keyring.NewAWSKMS(lying{}, "")
	require.ErrorIs(t, err, keyring.ErrInvalid)
}
