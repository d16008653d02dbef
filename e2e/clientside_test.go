package e2e

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"coffer/objstore/cse/keyring"
)

// Any test can be run with mounts that encrypt on this side: its files are then
// messages, under a keyring that all mounts of the run share, and its other client
// encrypts and decrypts as well.

// TestClientSideSuites runs tests of other files so, by calling them. "make e2e-cse"
// does that with all.
func TestClientSideSuites(t *testing.T) {
	if os.Getenv("COFFER_E2E_CSE") == "1" {
		t.Skip("all tests run so")
	}
	t.Run("TestLikeALocalFileSystem", TestLikeALocalFileSystem)
	t.Run("TestLikeALocalLargeFile", TestLikeALocalLargeFile)
	t.Run("TestTwoMounts", TestTwoMounts)
	t.Run("TestRandomWritesMatchModel", TestRandomWritesMatchModel)
	t.Run("TestOpenFlags", TestOpenFlags)
	t.Run("TestPosixRules", TestPosixRules)
	t.Run("TestPrograms", programsOnVersityGW)
	t.Run("TestCrash", TestCrash)
	t.Run("TestCrashAnywhere", TestCrashAnywhere)
	t.Run("TestRescue", TestRescue)
}

// notClientSide are the tests that say nothing where the mounts encrypt on this side,
// each with the reason. Those that choose a keyring themselves need not be here.
var notClientSide = map[string]string{
	"TestAtRest":                                    ownModes,
	"TestAtRestFindsPlaintext":                      ownModes,
	"TestModes":                                     ownModes,
	"TestMainJobInEveryMode":                        ownModes,
	"TestCustomerKeys":                              ownModes,
	"TestRenameBetweenPolicies":                     ownModes,
	"TestNoSecretIsShown":                           ownModes,
	"TestRefusal":                                   unencrypted,
	"TestRefusalCanBeWatched":                       unencrypted,
	"TestMkdirRefusedWhereUnencrypted":              unencrypted,
	"TestMkdirProvesEncryption":                     unencrypted,
	"TestAllowUnencrypted":                          unencrypted,
	"TestCopyMovesNothing":                          noRanges,
	"TestPartialRewriteMovesLittle":                 noRanges,
	"TestCrash/states/copy_of_a_part":               noRanges,
	"TestCredentialsRevoked/copy_of_a_part":         noRanges,
	"TestStoreRestarts/copy_of_a_part":              noRanges,
	"TestStoreRestarts/copy_of_a_part,_answer_lost": noRanges,
	"TestStreamTakesLittleMemory":                   holes,
	"TestRandomReadsFetchLittle":                    holes,
	"TestManyStreamsFetchOnce":                      holes,
	"TestStreamReachesTheSumOfItsConnections":       holes,
	"TestListAttributesCostNoHead":                  noSizes,
	"TestRemovalAsksForNoAttributes":                noSizes,
	"TestLsAsksForPagesOfAttributes":                noSizes,
	"TestTreesAreListedAhead":                       noSizes,
	"TestMainJobUnprivileged":                       "its user cannot read the keyring",
	"TestRewriteMaxIsForClientSideEncryption":       "it is about mounts that do not",
	"TestXattrsShowProtection":                      "it compares an ETag with the MD5 of the plaintext",
	"TestOddBuckets/with_archived_objects":          "its object is another program's",
}

// Reasons.
const (
	ownModes    = "it chooses its modes itself"
	unencrypted = "where a mount encrypts, the store need not"
	noRanges    = "a frame means nothing in another message: the store copies no ranges"
	noSizes     = "a listing does not tell how long a message is"
	holes       = "its objects are holes in files of the server"
)

// clientSide reports whether the mounts of a test encrypt on this side. It skips a
// test that says nothing then.
func clientSide(t testing.TB) bool {
	t.Helper()
	name, below := strings.CutPrefix(t.Name(), "TestClientSideSuites/")
	if !below && os.Getenv("COFFER_E2E_CSE") != "1" {
		return false
	}
	for test, why := range notClientSide {
		if name == test || strings.HasPrefix(name, test+"/") {
			t.Skipf("not with encryption on this side: %s", why)
		}
	}
	return true
}

// encryption is the value of user.s3.encryption where the store encrypts in a mode.
func encryption(t testing.TB, mode string) string {
	t.Helper()
	switch {
	case !clientSide(t):
		return mode
	case mode == "none":
		return "CSE-C"
	}
	return "CSE-C+" + mode
}

// sharedKeyring is the file of the keyring that all mounts of the run share, and the
// keyring.
var sharedKeyring = sync.OnceValues(func() (k struct {
	file string
	ring *keyring.Ring
}, err error) {
	dir, err := buildDir()
	if err != nil {
		return k, err
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	k.file = filepath.Join(dir, "keys.yaml")
	for name, text := range map[string]string{
		k.file:                    "- {type: raw-aes, namespace: e2e, name: shared, key_file: aes}\n",
		filepath.Join(dir, "aes"): hex.EncodeToString(key),
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			return k, err
		}
	}
	k.ring, _, err = keyring.Load(context.Background(), k.file, nil)
	return k, err
})
