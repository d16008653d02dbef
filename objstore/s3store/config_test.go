package s3store

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"coffer/objstore"

	"github.com/stretchr/testify/require"
)

func TestConfigRejects(t *testing.T) {
	for name, c := range map[string]Config{
		"http to another machine": {Endpoint: "http://s3.example.org"},
		"no host":                 {Endpoint: "https://"},
		"other scheme":            {Endpoint: "ftp://s3.example.org"},
		"no scheme":               {Endpoint: "s3.example.org"},
		"password":                {Endpoint: "https://u:p@s3.example.org"},
		"query":                   {Endpoint: "https://s3.example.org/?x"},
		"path style":              {PathStyle: "yes"},
		"list version":            {ListVersion: "3"},
		"rule without bucket":     {Rules: []Rule{{Pattern: "/x"}}},
		"rule pattern":            {Rules: []Rule{{Pattern: "[x"}}},
		"rule mode":               {Rules: []Rule{{Pattern: "x", Encryption: objstore.Encryption{Mode: objstore.ModeSSEC}}}},
		"probe prefix":            {ProbePrefix: "dir"},
		"timeout":                 {OperationTimeout: -time.Second},
		"small parts":             {PartSize: minPartSize - 1},
		"large parts":             {PartSize: maxPlannedPart + 1},
		"concurrency":             {Concurrency: maxConcurrency + 1},
		"anonymous with profile":  {Anonymous: true, Profile: "p"},
	} {
		t.Run(name, func(t *testing.T) { require.Error(t, c.Validate()) })
	}
}

func TestConfigAccepts(t *testing.T) {
	for name, c := range map[string]Config{
		"nothing":       {},
		"https":         {Endpoint: "https://s3.example.org:9000/base"},
		"loopback":      {Endpoint: "http://127.0.0.1:9000"},
		"loopback IPv6": {Endpoint: "http://[::1]:9000"},
		"localhost":     {Endpoint: "http://localhost:9000"},
		"http by name":  {Endpoint: "http://s3.example.org", AllowHTTP: true},
		"rules":         {Rules: []Rule{{Pattern: "data-*/in/", Encryption: objstore.Encryption{Mode: objstore.ModeSSES3}}, {Pattern: "*"}}},
		"all":           {PathStyle: "auto", ListVersion: "auto", ProbePrefix: "a/b/", PartSize: minPartSize, Concurrency: 1},
	} {
		t.Run(name, func(t *testing.T) { require.NoError(t, c.Validate()) })
	}
}

func TestRulesThatCannotWork(t *testing.T) {
	key := customerKey(t, 'a')
	for name, c := range map[string]struct {
		enc  objstore.Encryption
		keys []CustomerKey
		kind error
	}{
		"unknown mode":               {objstore.Encryption{Mode: "ROT13"}, nil, objstore.Unsupported},
		"KMS key without KMS":        {objstore.Encryption{Mode: objstore.ModeSSES3, KMSKeyID: "k"}, nil, objstore.Unsupported},
		"KMS key and auto":           {objstore.Encryption{KMSKeyID: "k"}, nil, objstore.Unsupported},
		"bucket key with DSSE":       {objstore.Encryption{Mode: objstore.ModeDSSEKMS, BucketKey: true}, nil, objstore.Unsupported},
		"customer key without SSE-C": {objstore.Encryption{Mode: objstore.ModeSSEKMS, CustomerKeyMD5: key.MD5()}, []CustomerKey{key}, objstore.Unsupported},
		"SSE-C without a key":        {objstore.Encryption{Mode: objstore.ModeSSEC}, nil, objstore.KeyUnavailable},
		"SSE-C with a strange key":   {objstore.Encryption{Mode: objstore.ModeSSEC, CustomerKeyMD5: "x"}, []CustomerKey{key}, objstore.KeyUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{Rules: []Rule{{Pattern: "b", Encryption: c.enc}}, CustomerKeys: c.keys}
			require.ErrorIs(t, cfg.Validate(), c.kind)
		})
	}
	require.Error(t, Config{Rules: []Rule{{Pattern: "b", KMSContext: map[string]string{"a": "b"}}}}.Validate())
	require.Error(t, Config{CustomerKeys: []CustomerKey{{}}}.Validate())
}

func TestCustomerKeysNeedTLS(t *testing.T) {
	keys := []CustomerKey{customerKey(t, 'a')}
	for endpoint, ok := range map[string]bool{
		"https://s3.example.org": true, "http://127.0.0.1:9000": true, "http://localhost": true, "http://s3.example.org": false,
	} {
		err := Config{Endpoint: endpoint, AllowHTTP: true, CustomerKeys: keys}.Validate()
		require.Equal(t, ok, err == nil, "%s: %v", endpoint, err)
	}
	t.Setenv("AWS_CONFIG_FILE", "/nonexistent")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
	t.Setenv("AWS_ENDPOINT_URL", "http://s3.example.org")
	_, err := New(t.Context(), Config{AllowHTTP: true, CustomerKeys: keys})
	require.ErrorContains(t, err, "is not https")
}

func TestFirstRuleWins(t *testing.T) {
	named := objstore.Encryption{Mode: objstore.ModeSSES3}
	none := objstore.Encryption{Mode: objstore.ModeNone}
	c := Config{Rules: []Rule{{Pattern: "data-*/open/", Encryption: none, AllowUnencrypted: true}, {Pattern: "data-*", Encryption: named}}}
	require.Equal(t, none, c.rule("data-1", "open/x").Encryption)
	require.Equal(t, named, c.rule("data-1", "ope").Encryption)
	require.Equal(t, Rule{}, c.rule("other", "open/x"))
	c.AllowUnencrypted = true
	require.True(t, c.rule("data-1", "x").AllowUnencrypted)
	require.True(t, c.rule("other", "x").AllowUnencrypted)
}

func TestEndpointOfTheEnvironmentIsCheckedToo(t *testing.T) {
	t.Setenv("AWS_CONFIG_FILE", "/nonexistent")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
	t.Setenv("AWS_ENDPOINT_URL", "http://s3.example.org")
	_, err := New(t.Context(), Config{})
	require.ErrorContains(t, err, "plain http")
	s, err := New(t.Context(), Config{AllowHTTP: true})
	require.NoError(t, err)
	require.Equal(t, "http://s3.example.org/us-east-1", s.Identity())
	t.Setenv("AWS_ENDPOINT_URL_S3", "https://other.example.org/")
	t.Setenv("AWS_REGION", "eu-central-1")
	s, err = New(t.Context(), Config{})
	require.NoError(t, err)
	require.Equal(t, "https://other.example.org/eu-central-1", s.Identity())
	require.True(t, s.pathStyle("bucket"))
}

func TestPathStyle(t *testing.T) {
	t.Setenv("AWS_CONFIG_FILE", "/nonexistent")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
	for _, c := range []struct {
		cfg    Config
		bucket string
		want   bool
	}{
		{Config{}, "bucket", false},
		{Config{}, "with.dots", true},
		{Config{PathStyle: "on"}, "bucket", true},
		{Config{PathStyle: "off", Endpoint: "https://s3.example.org"}, "bucket", false},
		{Config{Endpoint: "https://s3.example.org"}, "bucket", true},
		{Config{Endpoint: "https://s3.eu-west-1.amazonaws.com"}, "bucket", false},
	} {
		s, err := New(t.Context(), c.cfg)
		require.NoError(t, err)
		require.Equal(t, c.want, s.pathStyle(c.bucket), "%+v %s", c.cfg, c.bucket)
	}
}

func TestProfileGivesEndpointAndCredentials(t *testing.T) {
	dir := t.TempDir()
	conf, creds := filepath.Join(dir, "config"), filepath.Join(dir, "credentials")
	require.NoError(t, os.WriteFile(conf, []byte("[profile centre]\nregion = abci\nendpoint_url = https://s3.centre.example\n"), 0o600))
	require.NoError(t, os.WriteFile(creds, []byte("[centre]\naws_access_key_id = AKCENTRE\naws_secret_access_key = s\n"), 0o600))
	t.Setenv("AWS_CONFIG_FILE", conf)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", creds)
	s, err := New(t.Context(), Config{Profile: "centre"})
	require.NoError(t, err)
	require.Equal(t, "https://s3.centre.example/abci", s.Identity())
	v, err := s.creds.Retrieve(t.Context())
	require.NoError(t, err)
	require.Equal(t, "AKCENTRE", v.AccessKeyID)
	_, err = New(t.Context(), Config{Profile: "absent"})
	require.Error(t, err)
}

func TestNoCredentialsIsPermissionAndQuick(t *testing.T) {
	t.Setenv("AWS_CONFIG_FILE", "/nonexistent")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	s, err := New(t.Context(), Config{Endpoint: "http://127.0.0.1:1"})
	require.NoError(t, err)
	within(t, 5*time.Second, func() {
		_, err = s.Open(t.Context(), "bucket")
		require.ErrorIs(t, err, objstore.Permission)
		require.ErrorContains(t, err, "no usable credentials")
	})
}

func TestBucketNames(t *testing.T) {
	for _, name := range []string{"", "ab", "UPPER", "under_score", "-lead", "trail-", "a..b", "192.168.0.1", "xn--x", "with/slash", "ü-bucket", "a?b",
		"0123456789012345678901234567890123456789012345678901234567890123"} {
		require.ErrorIs(t, checkBucketName(name), objstore.InvalidName, name)
	}
	for _, name := range []string{"abc", "a.b-c", "123", "dataset-s0001"} {
		require.NoError(t, checkBucketName(name))
	}
}
