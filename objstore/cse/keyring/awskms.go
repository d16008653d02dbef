package keyring

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go"

	"coffer/objstore"
	"coffer/objstore/cse/message"
)

// kmsProvider is the provider ID of AWS KMS.
const kmsProvider = "aws-kms"

// KMSClient is what is needed of AWS KMS; a [*kms.Client] is one. It retries.
type KMSClient interface {
	Encrypt(context.Context, *kms.EncryptInput, ...func(*kms.Options)) (*kms.EncryptOutput, error)
	Decrypt(context.Context, *kms.DecryptInput, ...func(*kms.Options)) (*kms.DecryptOutput, error)
}

// KMSClients returns a client for a region, "" for the one that is configured.
type KMSClients func(region string) (KMSClient, error)

// NewKMSClient returns a client for a region, "" for that of cfg. Its endpoint is that
// of AWS unless cfg, AWS_ENDPOINT_URL_KMS or AWS_ENDPOINT_URL names another.
func NewKMSClient(cfg aws.Config, region string) KMSClient {
	return kms.NewFromConfig(cfg, func(o *kms.Options) {
		if region != "" {
			o.Region = region
		}
	})
}

// regionOf is the region in a key's ARN, "" for other names.
func regionOf(id string) string {
	if parts := strings.Split(id, ":"); len(parts) > 3 && parts[0] == "arn" {
		return parts[3]
	}
	return ""
}

// kmsKinds are the errors of KMS by what a caller can do about them; what is not here
// and has a code is a refusal.
var kmsKinds = map[string]objstore.Kind{
	"ThrottlingException": objstore.Throttled, "LimitExceededException": objstore.Throttled, "RequestLimitExceeded": objstore.Throttled,
	"KMSInternalException": objstore.Unavailable, "DependencyTimeoutException": objstore.Unavailable, "KeyUnavailableException": objstore.Unavailable,
	"InternalFailure": objstore.Unavailable, "ServiceUnavailable": objstore.Unavailable,
	"ExpiredTokenException": objstore.Expired, "ExpiredToken": objstore.Expired,
}

// kmsError gives an error of KMS its kind.
func kmsError(op, id string, err error) error {
	kind := objstore.Unavailable
	var coded smithy.APIError
	switch {
	case errors.Is(err, context.Canceled):
		kind = objstore.Canceled
	case errors.As(err, &coded):
		var ok bool
		if kind, ok = kmsKinds[coded.ErrorCode()]; !ok {
			kind = objstore.KeyUnavailable
		}
	}
	return &objstore.Error{Op: op, Key: id, Kind: kind, Err: err}
}

// AWSKMS is a key that never leaves AWS KMS, or a server with its API. KMS
// binds the encryption context to the data key, and writes it to its log.
type AWSKMS struct {
	client KMSClient
	id     string
	grants []string
}

// NewAWSKMS returns the key that id names: a key's id or ARN, or an alias
// ("alias/NAME") or its ARN. grants are grant tokens, for permissions that KMS
// has just been told of. The client is one for the key's region.
func NewAWSKMS(client KMSClient, id string, grants ...string) (*AWSKMS, error) {
	if id == "" || len(id) > maxName {
		return nil, invalid("%.40q names no key of AWS KMS", id)
	}
	return &AWSKMS{client, id, grants}, nil
}

// String names the key.
func (k *AWSKMS) String() string { return kmsProvider + " " + k.id }

// Fingerprint is the name of the key.
func (k *AWSKMS) Fingerprint() []byte { return []byte(k.id) }

// CanWrap returns nil: KMS decides that.
func (k *AWSKMS) CanWrap() error { return nil }

// Authenticates returns true: wrapping takes a permission that KMS checks.
func (k *AWSKMS) Authenticates() bool { return true }

// EDKBytes returns 0: KMS does not promise a length.
func (k *AWSKMS) EDKBytes() int { return 0 }

// Wrap asks KMS to encrypt the data key.
func (k *AWSKMS) Wrap(ctx context.Context, key message.DataKey, c message.Context) (message.EDK, error) {
	out, err := k.client.Encrypt(ctx, &kms.EncryptInput{
		KeyId: &k.id, Plaintext: key.Bytes(), EncryptionContext: pairs(c), GrantTokens: k.grants,
	})
	if err != nil {
		return message.EDK{}, kmsError("encrypt a data key", k.id, err)
	}
	// Readers ask for the key by its ARN, whatever it is called here.
	arn := aws.ToString(out.KeyId)
	if !strings.HasPrefix(arn, "arn:") || !strings.Contains(arn, ":key/") || len(out.CiphertextBlob) == 0 {
		return message.EDK{}, fmt.Errorf("KMS encrypted under %.200q, which is not the ARN of a key", arn)
	}
	return message.EDK{Provider: kmsProvider, Info: arn, Ciphertext: out.CiphertextBlob}, nil
}

// Matches compares what can be compared: which key an alias stands for, KMS
// alone knows.
func (k *AWSKMS) Matches(e message.EDK) bool {
	if e.Provider != kmsProvider {
		return false
	}
	place, _, isAlias := strings.Cut(k.id, "alias/")
	switch {
	case isAlias: // place is empty, or "arn:aws:kms:REGION:ACCOUNT:"
		return place == "" || strings.HasPrefix(e.Info, place+"key/")
	case strings.HasPrefix(k.id, "arn:"):
		return e.Info == k.id
	default:
		return strings.HasSuffix(e.Info, ":key/"+k.id)
	}
}

// Unwrap asks KMS to decrypt the data key. With an alias it is KMS that says
// whether the data key is one of this key.
func (k *AWSKMS) Unwrap(ctx context.Context, _ message.Suite, c message.Context, e message.EDK) (message.DataKey, error) {
	out, err := k.client.Decrypt(ctx, &kms.DecryptInput{
		KeyId: &k.id, CiphertextBlob: e.Ciphertext, EncryptionContext: pairs(c), GrantTokens: k.grants,
	})
	if err != nil {
		return message.DataKey{}, kmsError("decrypt a data key", k.id, err)
	}
	if arn := aws.ToString(out.KeyId); arn != e.Info {
		return message.DataKey{}, fmt.Errorf("KMS decrypted under %.200q, and the header says %.200q", arn, e.Info)
	}
	return message.NewDataKey(out.Plaintext), nil
}

// pairs is the context as KMS takes it.
func pairs(c message.Context) map[string]string {
	if c.Len() == 0 {
		return nil
	}
	m := make(map[string]string, c.Len())
	for name, value := range c.All() {
		m[name] = value
	}
	return m
}
