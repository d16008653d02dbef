// Oracle encrypts and decrypts with the official library for Go: the protocol
// is in ../../doc.go. It is a module of its own, so that none of the packages
// that the library needs come into Coffer's go.sum.
package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"runtime/debug"

	mpl "github.com/aws/aws-cryptographic-material-providers-library/releases/go/mpl/awscryptographymaterialproviderssmithygenerated"
	mpltypes "github.com/aws/aws-cryptographic-material-providers-library/releases/go/mpl/awscryptographymaterialproviderssmithygeneratedtypes"
	esdk "github.com/aws/aws-encryption-sdk/releases/go/encryption-sdk/awscryptographyencryptionsdksmithygenerated"
	esdktypes "github.com/aws/aws-encryption-sdk/releases/go/encryption-sdk/awscryptographyencryptionsdksmithygeneratedtypes"
)

type request struct {
	Op, In, Out, Suite, Policy string
	Frame                      int64
	Context                    map[string]string
	Keyrings                   []keyring
}

type keyring struct {
	Type, Namespace, Name, Key, Padding, Public, Private string
}

type answer struct {
	Error   string            `json:"error,omitempty"`
	Library string            `json:"library,omitempty"`
	Suite   string            `json:"suite,omitempty"`
	Context map[string]string `json:"context,omitempty"`
}

func main() {
	providers, err := mpl.NewClient(mpltypes.MaterialProvidersConfig{})
	if err != nil {
		log.Fatal(err)
	}
	lines := bufio.NewReader(os.Stdin)
	answers := json.NewEncoder(os.Stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return // the test has ended
		}
		a, err := serve(providers, line)
		if err != nil {
			a = answer{Error: err.Error()}
		}
		if err := answers.Encode(a); err != nil {
			log.Fatal(err)
		}
	}
}

func serve(providers *mpl.Client, line []byte) (a answer, err error) {
	// The library panics for some of the messages that it refuses.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	var q request
	if err := json.Unmarshal(line, &q); err != nil {
		return answer{}, err
	}
	if q.Op == "version" {
		return answer{Library: library()}, nil
	}
	client, err := esdk.NewClient(esdktypes.AwsEncryptionSdkConfig{CommitmentPolicy: policy(q.Policy)})
	if err != nil {
		return answer{}, err
	}
	k, err := combined(providers, q.Keyrings)
	if err != nil {
		return answer{}, err
	}
	in, err := os.ReadFile(q.In)
	if err != nil {
		return answer{}, err
	}
	switch q.Op {
	case "encrypt":
		input := esdktypes.EncryptInput{Plaintext: in, EncryptionContext: q.Context, Keyring: k}
		if q.Suite != "" {
			s := mpltypes.ESDKAlgorithmSuiteId(q.Suite)
			input.AlgorithmSuiteId = &s
		}
		if q.Frame != 0 {
			input.FrameLength = &q.Frame
		}
		out, err := client.Encrypt(context.Background(), input)
		if err != nil {
			return answer{}, err
		}
		return answer{Suite: string(out.AlgorithmSuiteId), Context: out.EncryptionContext}, os.WriteFile(q.Out, out.Ciphertext, 0o600)
	case "decrypt":
		out, err := client.Decrypt(context.Background(), esdktypes.DecryptInput{Ciphertext: in, Keyring: k})
		if err != nil {
			return answer{}, err
		}
		return answer{Suite: string(out.AlgorithmSuiteId), Context: out.EncryptionContext}, os.WriteFile(q.Out, out.Plaintext, 0o600)
	default:
		return answer{}, fmt.Errorf("unknown op %q", q.Op)
	}
}

func library() string {
	info, _ := debug.ReadBuildInfo()
	for _, m := range info.Deps {
		if m.Path == "github.com/aws/aws-encryption-sdk/releases/go/encryption-sdk" {
			return m.Path + " " + m.Version
		}
	}
	return "unknown"
}

// policy is nil for the library's default.
func policy(name string) *mpltypes.ESDKCommitmentPolicy {
	if name == "" {
		return nil
	}
	p := mpltypes.ESDKCommitmentPolicy(name)
	return &p
}

// combined is one keyring of all: the first makes the data key, and any of
// them unwraps it.
func combined(providers *mpl.Client, of []keyring) (mpltypes.IKeyring, error) {
	all := []mpltypes.IKeyring{}
	for _, k := range of {
		one, err := single(providers, k)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	if len(all) == 1 {
		return all[0], nil
	}
	return providers.CreateMultiKeyring(context.Background(), mpltypes.CreateMultiKeyringInput{Generator: all[0], ChildKeyrings: all[1:]})
}

var paddings = map[string]mpltypes.PaddingScheme{
	"pkcs1":       mpltypes.PaddingSchemePkcs1,
	"oaep-sha1":   mpltypes.PaddingSchemeOaepSha1Mgf1,
	"oaep-sha256": mpltypes.PaddingSchemeOaepSha256Mgf1,
	"oaep-sha384": mpltypes.PaddingSchemeOaepSha384Mgf1,
	"oaep-sha512": mpltypes.PaddingSchemeOaepSha512Mgf1,
}

func single(providers *mpl.Client, k keyring) (mpltypes.IKeyring, error) {
	switch k.Type {
	case "raw-aes":
		key, err := hex.DecodeString(k.Key)
		if err != nil {
			return nil, err
		}
		return providers.CreateRawAesKeyring(context.Background(), mpltypes.CreateRawAesKeyringInput{
			KeyNamespace: k.Namespace, KeyName: k.Name, WrappingKey: key,
			WrappingAlg: mpltypes.AesWrappingAlg(fmt.Sprintf("ALG_AES%d_GCM_IV12_TAG16", 8*len(key))),
		})
	case "raw-rsa":
		input := mpltypes.CreateRawRsaKeyringInput{KeyNamespace: k.Namespace, KeyName: k.Name, PaddingScheme: paddings[k.Padding]}
		if k.Public != "" {
			input.PublicKey = []byte(k.Public)
		}
		if k.Private != "" {
			input.PrivateKey = []byte(k.Private)
		}
		return providers.CreateRawRsaKeyring(context.Background(), input)
	default:
		return nil, fmt.Errorf("unknown keyring %q", k.Type)
	}
}
