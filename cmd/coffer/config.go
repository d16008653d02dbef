package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/pflag"

	"coffer/fs"
	"coffer/objstore/cse"
)

// Config holds every setting of a mount. The same names serve as flags
// (--endpoint-url; a few have none), environment (COFFER_ENDPOINT_URL), mount options
// (endpoint_url) and keys of the config file (endpoint-url).
type Config struct {
	EndpointURL   string `yaml:"endpoint-url"`
	Region        string `yaml:"region"`
	Profile       string `yaml:"profile"`
	PathStyle     choice `yaml:"path-style"`
	CAFile        string `yaml:"ca-file"`
	Anonymous     bool   `yaml:"anonymous"`
	RequesterPays bool   `yaml:"requester-pays"`
	AllowHTTP     bool   `yaml:"allow-http"`
	ListVersion   choice `yaml:"list-version"`

	SSE              choice            `yaml:"sse"`
	KMSKeyID         string            `yaml:"sse-kms-key-id"`
	CustomerKeyFiles pathList          `yaml:"sse-customer-key-file"`
	KMSContext       map[string]string `yaml:"kms-context"`
	BucketKey        bool              `yaml:"bucket-key"`
	AllowUnencrypted bool              `yaml:"allow-unencrypted"`
	Encryption       []encryptionRule  `yaml:"encryption"`

	CSEKeyring    string        `yaml:"cse-keyring"`
	CSEMode       choice        `yaml:"cse-mode"`
	CSEBinding    choice        `yaml:"cse-binding"`
	CSESigned     choice        `yaml:"cse-signed"`
	CSEOrigin     choice        `yaml:"cse-origin"`
	CSEAnySuite   bool          `yaml:"cse-any-suite"`
	CSERewriteMax sizeLimit     `yaml:"cse-rewrite-max"`
	CSESizes      declaredSizes `yaml:"cse-sizes"`

	ReadOnly    bool          `yaml:"read-only"`
	Attributes  choice        `yaml:"attributes"`
	Convention  choice        `yaml:"metadata-convention"`
	Exclusive   choice        `yaml:"exclusive"`
	Unlink      choice        `yaml:"unlink"`
	MetadataTTL lifetime      `yaml:"metadata-ttl"`
	AbsentTTL   time.Duration `yaml:"absent-ttl"`
	UID         ownerID       `yaml:"uid"`
	GID         ownerID       `yaml:"gid"`
	Umask       octal         `yaml:"umask"`
	AllowOther  bool          `yaml:"allow-other"`
	NonEmpty    bool          `yaml:"nonempty"`

	Memory     byteSize `yaml:"memory"`
	ScratchDir string   `yaml:"scratch-dir"`

	CacheDir     string   `yaml:"cache-dir"`
	CacheSize    byteSize `yaml:"cache-size"`
	CacheKeyFile string   `yaml:"cache-key-file"`

	Rescue        choice `yaml:"rescue"`
	RescueKeyFile string `yaml:"rescue-key-file"`

	LogFile   string `yaml:"log-file"`
	LogFormat choice `yaml:"log-format"`
	LogLevel  choice `yaml:"log-level"`
}

// encryptionRule is one entry of the config file's "encryption" list: how new
// objects of matching buckets and prefixes are protected. The first that
// matches wins; --sse and --allow-unencrypted apply where none does.
type encryptionRule struct {
	// Match is "bucket" or "bucket/prefix"; the bucket part may hold the
	// wildcards of path.Match, the rest is a plain prefix of the key.
	Match string `yaml:"match"`
	SSE   choice `yaml:"sse"`
	// KMSKeyID is a key's id, alias or ARN; "" is the store's default key.
	KMSKeyID string `yaml:"kms-key-id"`
	// KMSContext is the encryption context, instead of the one for all.
	KMSContext map[string]string `yaml:"kms-context"`
	// BucketKey asks for an S3 bucket key, which saves calls to the KMS.
	BucketKey bool `yaml:"bucket-key"`
	// CustomerKeyFiles are files with keys of SSE-C: the first is for writing.
	CustomerKeyFiles pathList `yaml:"customer-key-file"`
	AllowUnencrypted bool     `yaml:"allow-unencrypted"`
}

// Values of --sse.
const (
	sseAuto     = "auto"
	sseAES256   = "aes256"
	sseKMS      = "kms"
	sseDSSE     = "kms-dsse"
	sseCustomer = "customer"
	sseNone     = "none"
)

// Values of --rescue.
const (
	rescueFile  = "file"
	rescueMount = "mount"
	rescueOff   = "off"
)

// The choices. "auto" lets Coffer find out what the endpoint needs.
var (
	pathStyles     = []string{"auto", "on", "off"}
	listVersions   = []string{"auto", "1", "2"}
	sseModes       = []string{sseAuto, sseAES256, sseKMS, sseDSSE, sseCustomer, sseNone}
	attributeModes = []string{"auto", "list", "full"}
	conventions    = []string{"s3fs", "rclone", "fsx"}
	exclusiveModes = []string{"close", "open"}
	unlinkModes    = []string{"now", "batched"}
	rescueModes    = []string{rescueFile, rescueMount, rescueOff}
	logFormats     = []string{"text", "json"}
	logLevels      = []string{"debug", "info", "warn", "error"}
)

// defaultConfig returns the settings that hold where nothing else is said.
func defaultConfig() Config {
	return Config{
		PathStyle:   choice{"auto", pathStyles},
		ListVersion: choice{"auto", listVersions},
		SSE:         choice{"auto", sseModes},
		CSEMode:     choice{string(cse.Require), cseModes},
		CSESigned:   choice{string(cse.SignedAuto), cseSigned},
		CSEOrigin:   choice{originAny, cseOrigins},
		CSEBinding:  choice{string(cse.BindWarn), cseBindings},
		// Over 1 Gbit/s that many bytes come and go in ten minutes, in which a close
		// does not return.
		CSERewriteMax: 64 << 30,

		Attributes: choice{"auto", attributeModes},
		Convention: choice{"s3fs", conventions},
		Exclusive:  choice{"close", exclusiveModes},
		Unlink:     choice{"now", unlinkModes},
		Rescue:     choice{rescueFile, rescueModes},
		// Ten seconds: a remote change is seen within one retry of a
		// polling job, and a build's repeated stats cost no request.
		MetadataTTL: lifetime(10 * time.Second),
		UID:         -1,
		GID:         -1,
		Umask:       0o022,
		LogFormat:   choice{"text", logFormats},
		LogLevel:    choice{"info", logLevels},
	}
}

// UnmarshalYAML gives the rule's choice its allowed values before decoding.
func (r *encryptionRule) UnmarshalYAML(unmarshal func(any) error) error {
	type plain encryptionRule
	p := plain{SSE: choice{"auto", sseModes}}
	if err := unmarshal(&p); err != nil {
		return err
	}
	*r = encryptionRule(p)
	if r.Match == "" {
		return errors.New(`an entry of "encryption" needs "match"`)
	}
	return nil
}

// Environ looks up one environment variable, as os.LookupEnv does.
type environ func(name string) (string, bool)

// envName returns the environment variable of a flag.
func envName(flag string) string {
	return "COFFER_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// resolveConfig merges all sources: set flags over -o options over environment
// over config file over defaults. cmdline holds the parsed flags of the
// command, which may be a subset of those of a mount. File paths come back
// absolute, so that a daemon may leave its working directory.
func resolveConfig(cmdline *pflag.FlagSet, env environ, opts []mountOption) (Config, error) {
	cfg := defaultConfig()
	all := pflag.NewFlagSet("all", pflag.ContinueOnError)
	bindFlags(all, &cfg, groupUnlisted)
	bindFlags(all, &cfg, everyGroup...)

	// The file that is read is itself chosen by flag, -o or environment.
	file, explicit := "", false
	if v, ok := env(envName("config")); ok && v != "" {
		file, explicit = v, true
	}
	for _, o := range opts {
		if o.flag == "config" {
			file, explicit = o.value, true
		}
	}
	if f := cmdline.Lookup("config"); f != nil && f.Changed {
		file, explicit = f.Value.String(), true
	}
	if !explicit {
		file = defaultConfigFile(env)
	}
	if file != "" {
		if err := readConfigFile(file, &cfg); err != nil {
			return Config{}, &exitError{exitUsage, err}
		}
	}

	var err error
	all.VisitAll(func(f *pflag.Flag) {
		if v, ok := env(envName(f.Name)); ok && v != "" && err == nil {
			if e := assign(f.Value, v); e != nil {
				err = usageErrorf("environment variable %s: %w", envName(f.Name), e)
			}
		}
	})
	if err != nil {
		return Config{}, err
	}
	for _, o := range opts {
		if f := all.Lookup(o.flag); f != nil {
			if e := assign(f.Value, o.value); e != nil {
				return Config{}, usageErrorf("mount option %s: %w", o.name, e)
			}
		}
	}
	cmdline.Visit(func(f *pflag.Flag) {
		if t := all.Lookup(f.Name); t != nil && err == nil {
			err = assign(t.Value, f.Value.String())
		}
	})
	if err != nil {
		return Config{}, &exitError{exitUsage, err}
	}
	if err := cfg.absolutePaths(); err != nil {
		return Config{}, err
	}
	if err := cfg.Validate(); err != nil {
		return Config{}, &exitError{exitUsage, err}
	}
	return cfg, nil
}

// assign gives a flag the value v in place of what it had from a source that
// counts less: a list is replaced, where Set would add to it.
func assign(to pflag.Value, v string) error {
	if l, ok := to.(pflag.SliceValue); ok {
		if err := l.Replace(nil); err != nil {
			return err
		}
	}
	return to.Set(v)
}

// Validate rejects settings that contradict each other or cannot be meant.
func (c Config) Validate() error {
	// minMemory keeps one stream moving: a few blocks of read-ahead and two
	// upload parts.
	const minMemory = byteSize(64 << 20)
	if c.Anonymous && c.Profile != "" {
		return errors.New("anonymous access and a profile exclude each other")
	}
	if c.MetadataTTL == lifetime(fs.Indefinite) && !c.ReadOnly {
		return errors.New("metadata-ttl indefinite is for read-only mounts, of what nobody changes: add --read-only")
	}
	if c.AbsentTTL < 0 {
		return fmt.Errorf("absent-ttl %v is negative", c.AbsentTTL)
	}
	if c.Memory != 0 && c.Memory < minMemory {
		return fmt.Errorf("memory %v is below the least that works, %v", c.Memory, minMemory)
	}
	// Less would hold a few blocks, and rather waste the disk's time.
	const minCache = byteSize(16 << 20)
	if c.CacheSize != 0 && c.CacheSize < minCache {
		return fmt.Errorf("cache-size %v is below the least that works, %v", c.CacheSize, minCache)
	}
	if c.CacheDir == "" && (c.CacheSize != 0 || c.CacheKeyFile != "") {
		return errors.New("cache-size and cache-key-file go with cache-dir")
	}
	if 0o444&^c.Umask == 0 {
		return fmt.Errorf("umask %v leaves no file that anybody could read", c.Umask)
	}
	if c.EndpointURL != "" && !strings.HasPrefix(c.EndpointURL, "http://") && !strings.HasPrefix(c.EndpointURL, "https://") {
		return fmt.Errorf("endpoint-url %q starts with neither https:// nor http://", c.EndpointURL)
	}
	return c.validateEncryption()
}

// validateEncryption rejects keys without their mode and modes without their
// key. A mode by name that has no use for a key that is configured is none of
// these: flags replace one setting of a file at a time.
func (c Config) validateEncryption() error {
	if c.CSEOrigin.value == originAuthentic && c.CSEMode.value == string(cse.Auto) {
		return errors.New("cse-mode auto reads what anybody has written, which cse-origin authentic excludes")
	}
	if c.SSE.value == sseAuto && c.KMSKeyID != "" {
		return errors.New("sse-kms-key-id goes with sse kms or kms-dsse")
	}
	if c.SSE.value == sseAuto && c.BucketKey {
		return errors.New("bucket-key goes with sse kms")
	}
	if c.SSE.value == sseCustomer && len(c.CustomerKeyFiles) == 0 {
		return errors.New("sse customer needs sse-customer-key-file")
	}
	for _, r := range c.Encryption {
		kms := r.SSE.value == sseKMS || r.SSE.value == sseDSSE
		switch {
		case !kms && (r.KMSKeyID != "" || len(r.KMSContext) > 0):
			return fmt.Errorf("encryption of %q: kms-key-id and kms-context go with sse kms or kms-dsse", r.Match)
		case r.SSE.value != sseKMS && r.BucketKey:
			return fmt.Errorf("encryption of %q: bucket-key goes with sse kms", r.Match)
		case r.SSE.value == sseCustomer && len(r.CustomerKeyFiles) == 0 && len(c.CustomerKeyFiles) == 0:
			return fmt.Errorf("encryption of %q: sse customer needs customer-key-file", r.Match)
		}
	}
	return nil
}

func (c *Config) absolutePaths() error {
	paths := []*string{&c.CAFile, &c.CSEKeyring, &c.ScratchDir, &c.CacheDir, &c.CacheKeyFile, &c.RescueKeyFile, &c.LogFile}
	for i := range c.CustomerKeyFiles {
		paths = append(paths, &c.CustomerKeyFiles[i])
	}
	for i := range c.Encryption {
		for j := range c.Encryption[i].CustomerKeyFiles {
			paths = append(paths, &c.Encryption[i].CustomerKeyFiles[j])
		}
	}
	for _, p := range paths {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		*p = abs
	}
	return nil
}

// defaultConfigFile returns the first config file that exists: the user's,
// then the machine's; "" when there is none.
func defaultConfigFile(env environ) string {
	var candidates []string
	if dir, _ := env("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		candidates = append(candidates, filepath.Join(dir, "coffer", "config.yaml"))
	} else if home, _ := env("HOME"); home != "" {
		candidates = append(candidates, filepath.Join(home, ".config", "coffer", "config.yaml"))
	}
	candidates = append(candidates, "/etc/coffer/config.yaml")
	for _, c := range candidates {
		if _, err := os.Stat(c); err == nil {
			return c
		}
	}
	return ""
}

func readConfigFile(name string, cfg *Config) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("config file: %w", err)
	}
	if err := decodeConfig(text, cfg); err != nil {
		return fmt.Errorf("config file %s: %w", name, err)
	}
	return nil
}

// decodeConfig decodes YAML over cfg: what the text does not name keeps its
// value. Unknown and repeated keys are errors that show the line, and so is a
// key without a value, which YAML would take for zero: "uid:" is not root.
func decodeConfig(text []byte, cfg *Config) error {
	var raw any
	if err := yaml.Unmarshal(text, &raw); err != nil {
		return errors.New(yaml.FormatError(err, false, true))
	}
	if raw == nil {
		return nil // empty, or nothing but comments
	}
	if key := keyWithoutValue("", raw); key != "" {
		return fmt.Errorf("%s has no value", key)
	}
	if err := yaml.UnmarshalWithOptions(text, cfg, yaml.Strict()); err != nil {
		return errors.New(yaml.FormatError(err, false, true))
	}
	return nil
}

// keyWithoutValue returns the first key below v that is null, "" if none.
func keyWithoutValue(name string, v any) string {
	switch v := v.(type) {
	case nil:
		return name
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			if key := keyWithoutValue(strings.TrimPrefix(name+"."+k, "."), v[k]); key != "" {
				return key
			}
		}
	case []any:
		for i, e := range v {
			if key := keyWithoutValue(fmt.Sprintf("%s[%d]", name, i), e); key != "" {
				return key
			}
		}
	}
	return ""
}
