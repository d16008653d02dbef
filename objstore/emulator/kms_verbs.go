package emulator

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The AWS KMS API: JSON 1.1, the operation in X-Amz-Target.

const (
	kmsTarget = "TrentService."
	// kmsVerb precedes the names of KMS operations in faults and in the log.
	kmsVerb = "kms:"
	// maxKMSBody bounds a request's body in bytes; Encrypt takes 4 KiB.
	maxKMSBody = 1 << 20
	maxKMSText = 4096
)

// kmsRequest holds the members of all operations; a request that has others is
// refused, since to ignore them would be a lie.
type kmsRequest struct {
	KeyId                          string
	AliasName                      string
	TargetKeyId                    string
	Description                    string
	KeyUsage                       string
	KeySpec                        string
	NumberOfBytes                  int
	Plaintext                      []byte
	CiphertextBlob                 []byte
	EncryptionAlgorithm            string
	EncryptionContext              map[string]string
	SourceKeyId                    string
	SourceEncryptionContext        map[string]string
	SourceEncryptionAlgorithm      string
	DestinationKeyId               string
	DestinationEncryptionContext   map[string]string
	DestinationEncryptionAlgorithm string
	PendingWindowInDays            int
	RotationPeriodInDays           int
	Limit                          int
	Marker                         string
	GrantTokens                    []string
}

// kmsOperations are the operations that are served.
var kmsOperations = map[string]func(*keyService, kmsRequest) (any, error){
	"CreateKey":                       (*keyService).createKey,
	"DescribeKey":                     (*keyService).describeKey,
	"ListKeys":                        (*keyService).listKeys,
	"EnableKey":                       func(k *keyService, r kmsRequest) (any, error) { return nil, k.enable(r.KeyId, true) },
	"DisableKey":                      func(k *keyService, r kmsRequest) (any, error) { return nil, k.enable(r.KeyId, false) },
	"ScheduleKeyDeletion":             (*keyService).scheduleDeletion,
	"CancelKeyDeletion":               (*keyService).cancelDeletion,
	"EnableKeyRotation":               (*keyService).enableRotation,
	"DisableKeyRotation":              (*keyService).disableRotation,
	"GetKeyRotationStatus":            (*keyService).rotationStatus,
	"RotateKeyOnDemand":               (*keyService).rotateOnDemand,
	"CreateAlias":                     (*keyService).createAlias,
	"UpdateAlias":                     (*keyService).updateAlias,
	"DeleteAlias":                     (*keyService).deleteAlias,
	"ListAliases":                     (*keyService).listAliases,
	"GenerateDataKey":                 (*keyService).generateDataKey,
	"GenerateDataKeyWithoutPlaintext": (*keyService).generateWithoutPlaintext,
	"Encrypt":                         (*keyService).encrypt,
	"Decrypt":                         (*keyService).decrypt,
	"ReEncrypt":                       (*keyService).reEncrypt,
}

// isKMS tells requests to the key service from those to S3.
func isKMS(r *http.Request) bool {
	return r.Method == http.MethodPost && r.URL.Path == "/" && strings.HasPrefix(r.Header.Get("X-Amz-Target"), kmsTarget)
}

// handleKMS authenticates and runs a KMS operation.
func (s *Server) handleKMS(c *call) error {
	body, err := io.ReadAll(io.LimitReader(c.r.Body, maxKMSBody+1))
	if err != nil {
		return err
	}
	if len(body) > maxKMSBody {
		return fail("ValidationException", "The request is longer than %d bytes.", maxKMSBody)
	}
	// The header that names the body's hash is S3's alone.
	sum := sha256.Sum256(body)
	if _, err := s.creds.verifyFor("kms", hex.EncodeToString(sum[:]), c.r, c.query, s.signatureTime()); err != nil {
		return kmsAuthError(err)
	}
	name := strings.TrimPrefix(c.verb, kmsVerb)
	operation := kmsOperations[name]
	if operation == nil {
		return fail("UnknownOperationException", "This server has no operation %s.", name)
	}
	var in kmsRequest
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return fail("ValidationException", "The request is not what %s takes here: %v", name, err)
	}
	out, err := operation(s.kms, in)
	if err != nil {
		return err
	}
	var text []byte
	if out != nil {
		if text, err = json.Marshal(out); err != nil {
			return err
		}
	}
	return c.sendJSON(http.StatusOK, text)
}

func (c *call) sendJSON(status int, body []byte) error {
	h := c.w.Header()
	h.Set("Content-Type", "application/x-amz-json-1.1")
	h.Set("x-amzn-RequestId", c.id)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	c.w.WriteHeader(status)
	// A client that went away is no error of the server's.
	_, _ = c.w.Write(body)
	return nil
}

// sendKMSError answers with an error as KMS has it.
func (c *call) sendKMSError(e *apiError) {
	c.code = e.Code
	body, err := json.Marshal(map[string]string{"__type": e.Code, "message": e.Message})
	if err == nil {
		err = c.sendJSON(e.Status, body)
	}
	if err != nil {
		c.w.WriteHeader(http.StatusInternalServerError)
	}
}

// kmsAuthError turns S3's answers to bad signatures into those of AWS' other
// services.
func kmsAuthError(err error) error {
	var e *apiError
	if !errors.As(err, &e) {
		return err
	}
	code := "IncompleteSignatureException"
	switch e.Code {
	case "SignatureDoesNotMatch", "RequestTimeTooSkewed":
		code = "InvalidSignatureException"
	case "InvalidAccessKeyId", "InvalidToken":
		code = "UnrecognizedClientException"
	case "ExpiredToken":
		code = "ExpiredTokenException"
	case "AccessDenied":
		code = "MissingAuthenticationTokenException"
	}
	return &apiError{Code: code, Status: statusOf[code], Message: e.Message}
}

// epoch is a time in JSON 1.1: seconds since 1970.
func epoch(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func (k *keyService) describe(key kmsKey) map[string]any {
	state, manager := "Enabled", "CUSTOMER"
	switch {
	case !key.Deletion.IsZero():
		state = "PendingDeletion"
	case !key.Enabled:
		state = "Disabled"
	}
	if key.AWSManaged {
		manager = "AWS"
	}
	out := map[string]any{
		"AWSAccountId": kmsAccount, "KeyId": key.ID, "Arn": k.keyARN(key.ID), "CreationDate": epoch(key.Created),
		"Enabled": state == "Enabled", "Description": key.Description, "KeyUsage": "ENCRYPT_DECRYPT", "KeyState": state,
		"Origin": "AWS_KMS", "KeyManager": manager, "CustomerMasterKeySpec": "SYMMETRIC_DEFAULT", "KeySpec": "SYMMETRIC_DEFAULT",
		"EncryptionAlgorithms": []string{"SYMMETRIC_DEFAULT"}, "MultiRegion": false,
	}
	if !key.Deletion.IsZero() {
		out["DeletionDate"] = epoch(key.Deletion)
	}
	return map[string]any{"KeyMetadata": out}
}

func (k *keyService) createKey(r kmsRequest) (any, error) {
	if r.KeyUsage != "" && r.KeyUsage != "ENCRYPT_DECRYPT" || r.KeySpec != "" && r.KeySpec != "SYMMETRIC_DEFAULT" {
		return nil, fail("UnsupportedOperationException", "This server has symmetric keys for encryption only.")
	}
	key, err := k.create(r.Description, "", false)
	return k.describe(key), err
}

func (k *keyService) describeKey(r kmsRequest) (any, error) {
	key, err := k.find(r.KeyId)
	if err != nil && strings.HasPrefix(r.KeyId, awsAliasPrefix) {
		key, err = k.managed(r.KeyId)
	}
	return k.describe(key), err
}

// kmsPage cuts one page out of sorted names, whose marker is the last one.
func kmsPage(names []string, r kmsRequest) (page []string, next string) {
	limit := r.Limit
	if limit <= 0 || limit > 1000 {
		limit = 100
	}
	i, found := slices.BinarySearch(names, r.Marker)
	if found {
		i++
	}
	names = names[i:]
	if len(names) > limit {
		return names[:limit], names[limit-1]
	}
	return names, ""
}

func (k *keyService) listKeys(r kmsRequest) (any, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	page, next := kmsPage(slices.Sorted(maps.Keys(k.keys)), r)
	list := []map[string]string{}
	for _, id := range page {
		list = append(list, map[string]string{"KeyId": id, "KeyArn": k.keyARN(id)})
	}
	return pageResult("Keys", list, next), nil
}

func pageResult(name string, list any, next string) map[string]any {
	out := map[string]any{name: list, "Truncated": next != ""}
	if next != "" {
		out["NextMarker"] = next
	}
	return out
}

func (k *keyService) listAliases(r kmsRequest) (any, error) {
	only := ""
	if r.KeyId != "" {
		key, err := k.find(r.KeyId)
		if err != nil {
			return nil, err
		}
		only = key.ID
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	names := slices.Sorted(maps.Keys(k.alias))
	if only != "" {
		names = slices.DeleteFunc(names, func(name string) bool { return k.alias[name] != only })
	}
	page, next := kmsPage(names, r)
	list := []map[string]any{}
	for _, name := range page {
		list = append(list, map[string]any{"AliasName": name, "AliasArn": k.aliasARN(name), "TargetKeyId": k.alias[name]})
	}
	return pageResult("Aliases", list, next), nil
}

func checkAlias(name string) error {
	if len(name) <= len("alias/") || !strings.HasPrefix(name, "alias/") {
		return fail("ValidationException", "Alias must start with the prefix \"alias/\". Please see https://docs.aws.amazon.com/kms/latest/developerguide/kms-alias.html")
	}
	if strings.HasPrefix(name, awsAliasPrefix) {
		return fail("InvalidAliasNameException", "The alias %s is reserved.", name)
	}
	return nil
}

func (k *keyService) createAlias(r kmsRequest) (any, error) { return k.setAlias(r, false) }

func (k *keyService) updateAlias(r kmsRequest) (any, error) { return k.setAlias(r, true) }

func (k *keyService) setAlias(r kmsRequest, exists bool) (any, error) {
	if err := checkAlias(r.AliasName); err != nil {
		return nil, err
	}
	key, err := k.find(r.TargetKeyId)
	if err != nil {
		return nil, err
	}
	return nil, k.change(func(_ map[string]kmsKey, alias map[string]string) error {
		switch old := alias[r.AliasName]; {
		case old == "" && exists:
			return fail("NotFoundException", "Alias %s is not found.", k.aliasARN(r.AliasName))
		case old != "" && !exists:
			return fail("AlreadyExistsException", "An alias with the name %s already exists", k.aliasARN(r.AliasName))
		}
		alias[r.AliasName] = key.ID
		return nil
	})
}

func (k *keyService) deleteAlias(r kmsRequest) (any, error) {
	if err := checkAlias(r.AliasName); err != nil {
		return nil, err
	}
	return nil, k.change(func(_ map[string]kmsKey, alias map[string]string) error {
		if alias[r.AliasName] == "" {
			return fail("NotFoundException", "Alias %s is not found.", k.aliasARN(r.AliasName))
		}
		delete(alias, r.AliasName)
		return nil
	})
}

func (k *keyService) scheduleDeletion(r kmsRequest) (any, error) {
	days := r.PendingWindowInDays
	if days == 0 {
		days = 30
	}
	if days < 7 || days > 30 {
		return nil, fail("ValidationException", "PendingWindowInDays must be between 7 and 30.")
	}
	key, err := k.edit(r.KeyId, func(key *kmsKey) error {
		if err := k.changeable(*key); err != nil {
			return err
		}
		key.Deletion = k.now().UTC().AddDate(0, 0, days)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return map[string]any{"KeyId": k.keyARN(key.ID), "DeletionDate": epoch(key.Deletion), "KeyState": "PendingDeletion", "PendingWindowInDays": days}, nil
}

func (k *keyService) cancelDeletion(r kmsRequest) (any, error) {
	key, err := k.edit(r.KeyId, func(key *kmsKey) error {
		if key.Deletion.IsZero() {
			return fail("KMSInvalidStateException", "%s is not pending deletion.", k.keyARN(key.ID))
		}
		// The key comes back disabled, as on AWS.
		key.Deletion, key.Enabled = time.Time{}, false
		return nil
	})
	return map[string]any{"KeyId": k.keyARN(key.ID)}, err
}

func (k *keyService) enableRotation(r kmsRequest) (any, error) {
	days := r.RotationPeriodInDays
	if days == 0 {
		days = 365
	}
	if days < 90 || days > 2560 {
		return nil, fail("ValidationException", "RotationPeriodInDays must be between 90 and 2560.")
	}
	return k.setRotation(r.KeyId, days)
}

func (k *keyService) disableRotation(r kmsRequest) (any, error) { return k.setRotation(r.KeyId, 0) }

func (k *keyService) setRotation(name string, days int) (any, error) {
	_, err := k.edit(name, func(key *kmsKey) error {
		if err := k.changeable(*key); err != nil {
			return err
		}
		key.RotationDays = days
		return nil
	})
	return nil, err
}

func (k *keyService) rotationStatus(r kmsRequest) (any, error) {
	key, err := k.find(r.KeyId)
	if err != nil {
		return nil, err
	}
	out := map[string]any{"KeyId": k.keyARN(key.ID), "KeyRotationEnabled": key.RotationDays > 0}
	if key.RotationDays > 0 {
		out["RotationPeriodInDays"] = key.RotationDays
	}
	return out, nil
}

func (k *keyService) rotateOnDemand(r kmsRequest) (any, error) {
	key, err := k.find(r.KeyId)
	if err != nil {
		return nil, err
	}
	return map[string]any{"KeyId": k.keyARN(key.ID)}, k.rotate(key.ID)
}

func (k *keyService) generateDataKey(r kmsRequest) (any, error) {
	n := r.NumberOfBytes
	switch {
	case r.KeySpec == "AES_256" && n == 0:
		n = 32
	case r.KeySpec == "AES_128" && n == 0:
		n = 16
	case r.KeySpec != "" || n < 1 || n > 1024:
		return nil, fail("ValidationException", "Please specify either number of bytes (1 to 1024) or key spec.")
	}
	plain := make([]byte, n)
	rand.Read(plain)
	key, blob, err := k.seal(r.KeyId, plain, r.EncryptionContext)
	if err != nil {
		return nil, err
	}
	return map[string]any{"KeyId": k.keyARN(key.ID), "Plaintext": plain, "CiphertextBlob": blob}, nil
}

func (k *keyService) generateWithoutPlaintext(r kmsRequest) (any, error) {
	out, err := k.generateDataKey(r)
	if m, ok := out.(map[string]any); ok {
		delete(m, "Plaintext")
	}
	return out, err
}

// checkSymmetric refuses algorithms of keys that are not here.
func checkSymmetric(names ...string) error {
	for _, name := range names {
		if name != "" && name != "SYMMETRIC_DEFAULT" {
			return fail("InvalidKeyUsageException", "The algorithm %s is not compatible with the key spec SYMMETRIC_DEFAULT.", name)
		}
	}
	return nil
}

func (k *keyService) encrypt(r kmsRequest) (any, error) {
	if err := checkSymmetric(r.EncryptionAlgorithm); err != nil {
		return nil, err
	}
	if len(r.Plaintext) == 0 || len(r.Plaintext) > maxKMSText {
		return nil, fail("ValidationException", "Plaintext must be of 1 to %d bytes.", maxKMSText)
	}
	key, blob, err := k.seal(r.KeyId, r.Plaintext, r.EncryptionContext)
	if err != nil {
		return nil, err
	}
	return map[string]any{"KeyId": k.keyARN(key.ID), "CiphertextBlob": blob, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}, nil
}

func (k *keyService) decrypt(r kmsRequest) (any, error) {
	if err := checkSymmetric(r.EncryptionAlgorithm); err != nil {
		return nil, err
	}
	key, plain, err := k.unseal(r.CiphertextBlob, r.EncryptionContext, r.KeyId)
	if err != nil {
		return nil, err
	}
	return map[string]any{"KeyId": k.keyARN(key.ID), "Plaintext": plain, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"}, nil
}

func (k *keyService) reEncrypt(r kmsRequest) (any, error) {
	if err := checkSymmetric(r.SourceEncryptionAlgorithm, r.DestinationEncryptionAlgorithm); err != nil {
		return nil, err
	}
	from, plain, err := k.unseal(r.CiphertextBlob, r.SourceEncryptionContext, r.SourceKeyId)
	if err != nil {
		return nil, err
	}
	to, blob, err := k.seal(r.DestinationKeyId, plain, r.DestinationEncryptionContext)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"CiphertextBlob": blob, "SourceKeyId": k.keyARN(from.ID), "KeyId": k.keyARN(to.ID),
		"SourceEncryptionAlgorithm": "SYMMETRIC_DEFAULT", "DestinationEncryptionAlgorithm": "SYMMETRIC_DEFAULT",
	}, nil
}
