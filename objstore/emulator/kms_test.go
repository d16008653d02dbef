package emulator_test

import (
	"errors"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/require"

	"coffer/objstore/emulator"
)

func kmsClient(s *emulator.Server, secret string) *kms.Client {
	return kms.New(kms.Options{
		BaseEndpoint: aws.String(s.Endpoint()), Region: "us-east-1", RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(accessKey, secret, ""),
	})
}

func requireKMS(t testing.TB, err error, code string) {
	t.Helper()
	require.Error(t, err)
	var ae smithy.APIError
	require.True(t, errors.As(err, &ae), "%v", err)
	require.Equal(t, code, ae.ErrorCode(), "%v", err)
}

func TestKMSSealsAndOpens(t *testing.T) {
	dir := t.TempDir()
	s := start(t, emulator.Config{Dir: dir})
	c := kmsClient(s, secretKey)
	arn, err := s.CreateKMSKey("mine")
	require.NoError(t, err)
	context := map[string]string{"a": "1", "b": "2"}
	data, err := c.GenerateDataKey(t.Context(), &kms.GenerateDataKeyInput{KeyId: aws.String("alias/mine"), KeySpec: types.DataKeySpecAes256, EncryptionContext: context})
	require.NoError(t, err)
	require.Len(t, data.Plaintext, 32)
	require.Equal(t, arn, *data.KeyId)
	require.Empty(t, found(t, dir, data.Plaintext))
	blind, err := c.GenerateDataKeyWithoutPlaintext(t.Context(), &kms.GenerateDataKeyWithoutPlaintextInput{KeyId: &arn, NumberOfBytes: aws.Int32(16)})
	require.NoError(t, err)
	require.NotEmpty(t, blind.CiphertextBlob)

	open := func(blob []byte, context map[string]string, key *string) ([]byte, error) {
		out, err := c.Decrypt(t.Context(), &kms.DecryptInput{CiphertextBlob: blob, EncryptionContext: context, KeyId: key})
		if err != nil {
			return nil, err
		}
		return out.Plaintext, nil
	}
	got, err := open(data.CiphertextBlob, context, nil)
	require.NoError(t, err)
	require.Equal(t, data.Plaintext, got)
	for _, wrong := range []map[string]string{nil, {"a": "1"}, {"a": "1", "b": "3"}, {"a1b": "2"}, {"a": "1b2"}} {
		_, err = open(data.CiphertextBlob, wrong, nil)
		requireKMS(t, err, "InvalidCiphertextException")
	}
	_, err = open([]byte("rubbish"), context, nil)
	requireKMS(t, err, "InvalidCiphertextException")
	other, err := s.CreateKMSKey("other")
	require.NoError(t, err)
	_, err = open(data.CiphertextBlob, context, &other)
	requireKMS(t, err, "IncorrectKeyException")

	_, err = c.RotateKeyOnDemand(t.Context(), &kms.RotateKeyOnDemandInput{KeyId: &arn})
	require.NoError(t, err)
	got, err = open(data.CiphertextBlob, context, &arn)
	require.NoError(t, err, "what was sealed before a rotation")
	require.Equal(t, data.Plaintext, got)
	sealed, err := c.Encrypt(t.Context(), &kms.EncryptInput{KeyId: &arn, Plaintext: []byte("text")})
	require.NoError(t, err)
	moved, err := c.ReEncrypt(t.Context(), &kms.ReEncryptInput{CiphertextBlob: sealed.CiphertextBlob, DestinationKeyId: &other, DestinationEncryptionContext: context})
	require.NoError(t, err)
	require.Equal(t, other, *moved.KeyId)
	require.Equal(t, arn, *moved.SourceKeyId)
	got, err = open(moved.CiphertextBlob, context, &other)
	require.NoError(t, err)
	require.Equal(t, "text", string(got))

	// All of it outlives the server.
	require.NoError(t, s.Close())
	c = kmsClient(start(t, emulator.Config{Dir: dir}), secretKey)
	got, err = open(data.CiphertextBlob, context, nil)
	require.NoError(t, err)
	require.Equal(t, data.Plaintext, got)
}

func TestKMSKeyStates(t *testing.T) {
	s := start(t, emulator.Config{})
	c := kmsClient(s, secretKey)
	made, err := c.CreateKey(t.Context(), &kms.CreateKeyInput{Description: aws.String("for a test")})
	require.NoError(t, err)
	id := made.KeyMetadata.KeyId
	state := func() types.KeyState {
		out, err := c.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: id})
		require.NoError(t, err)
		require.Equal(t, "for a test", *out.KeyMetadata.Description)
		return out.KeyMetadata.KeyState
	}
	use := func() error {
		_, err := c.Encrypt(t.Context(), &kms.EncryptInput{KeyId: id, Plaintext: []byte("x")})
		return err
	}
	require.Equal(t, types.KeyStateEnabled, state())
	require.NoError(t, use())
	_, err = c.DisableKey(t.Context(), &kms.DisableKeyInput{KeyId: id})
	require.NoError(t, err)
	require.Equal(t, types.KeyStateDisabled, state())
	requireKMS(t, use(), "DisabledException")
	_, err = c.EnableKey(t.Context(), &kms.EnableKeyInput{KeyId: id})
	require.NoError(t, err)
	require.NoError(t, use())
	_, err = c.ScheduleKeyDeletion(t.Context(), &kms.ScheduleKeyDeletionInput{KeyId: id, PendingWindowInDays: aws.Int32(7)})
	require.NoError(t, err)
	require.Equal(t, types.KeyStatePendingDeletion, state())
	requireKMS(t, use(), "KMSInvalidStateException")
	_, err = c.CancelKeyDeletion(t.Context(), &kms.CancelKeyDeletionInput{KeyId: id})
	require.NoError(t, err)
	require.Equal(t, types.KeyStateDisabled, state())
	require.NoError(t, s.EnableKMSKey(*id))
	require.NoError(t, s.DenyKMS(*id, true))
	requireKMS(t, use(), "AccessDeniedException")
	require.NoError(t, s.DenyKMS(*id, false))
	require.NoError(t, use())

	status := func() bool {
		out, err := c.GetKeyRotationStatus(t.Context(), &kms.GetKeyRotationStatusInput{KeyId: id})
		require.NoError(t, err)
		return out.KeyRotationEnabled
	}
	require.False(t, status())
	_, err = c.EnableKeyRotation(t.Context(), &kms.EnableKeyRotationInput{KeyId: id})
	require.NoError(t, err)
	require.True(t, status())
	_, err = c.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: aws.String("alias/nobody")})
	requireKMS(t, err, "NotFoundException")
	_, err = c.DescribeKey(t.Context(), &kms.DescribeKeyInput{KeyId: aws.String("arn:aws:kms:eu-west-1:111122223333:key/" + *id)})
	requireKMS(t, err, "NotFoundException")
}

func TestKMSAliases(t *testing.T) {
	s := start(t, emulator.Config{})
	c := kmsClient(s, secretKey)
	first, err := s.CreateKMSKey("one")
	require.NoError(t, err)
	_, err = s.CreateKMSKey("one")
	require.Error(t, err)
	for _, name := range []string{"alias/two", "alias/three"} {
		_, err = c.CreateAlias(t.Context(), &kms.CreateAliasInput{AliasName: &name, TargetKeyId: &first})
		require.NoError(t, err)
	}
	_, err = c.CreateAlias(t.Context(), &kms.CreateAliasInput{AliasName: aws.String("alias/aws/s3"), TargetKeyId: &first})
	requireKMS(t, err, "InvalidAliasNameException")
	_, err = c.DeleteAlias(t.Context(), &kms.DeleteAliasInput{AliasName: aws.String("alias/two")})
	require.NoError(t, err)
	_, err = c.DeleteAlias(t.Context(), &kms.DeleteAliasInput{AliasName: aws.String("alias/two")})
	requireKMS(t, err, "NotFoundException")
	var names []string
	pages := kms.NewListAliasesPaginator(c, &kms.ListAliasesInput{KeyId: &first, Limit: aws.Int32(1)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		require.NoError(t, err)
		for _, a := range page.Aliases {
			names = append(names, *a.AliasName)
		}
	}
	require.Equal(t, []string{"alias/one", "alias/three"}, names)
	keys, err := c.ListKeys(t.Context(), &kms.ListKeysInput{})
	require.NoError(t, err)
	require.Len(t, keys.Keys, 1)
	require.Equal(t, first, *keys.Keys[0].KeyArn)
}

func TestKMSRequestsAreChecked(t *testing.T) {
	s := start(t, emulator.Config{})
	_, err := kmsClient(s, "another secret").ListKeys(t.Context(), &kms.ListKeysInput{})
	requireKMS(t, err, "InvalidSignatureException")
	c := kmsClient(s, secretKey)
	_, err = c.GenerateRandom(t.Context(), &kms.GenerateRandomInput{NumberOfBytes: aws.Int32(1)})
	requireKMS(t, err, "UnknownOperationException")
	_, err = c.ListKeys(t.Context(), &kms.ListKeysInput{})
	require.NoError(t, err)
	for _, code := range []string{"ThrottlingException", "AccessDeniedException", "KMSInternalException"} {
		s.Inject(emulator.Fault{Verb: "kms:ListKeys", Code: code})
		_, err = c.ListKeys(t.Context(), &kms.ListKeysInput{})
		requireKMS(t, err, code)
		s.ClearFaults()
	}
	last := s.Requests()
	require.Equal(t, "kms:ListKeys", last[len(last)-1].Verb)
	require.Equal(t, "KMSInternalException", last[len(last)-1].Code)
}
