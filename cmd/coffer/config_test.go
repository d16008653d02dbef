package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"coffer/fs"
	"coffer/objstore/cse/message"
)

// envOf makes an environment of pairs.
func envOf(kv map[string]string) environ {
	return func(name string) (string, bool) { v, ok := kv[name]; return v, ok }
}

// resolve runs resolveConfig as a command with the given arguments would.
func resolve(t *testing.T, args []string, env map[string]string, options string) (Config, error) {
	t.Helper()
	scratch := defaultConfig()
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	bindFlags(fs, &scratch, everyGroup...)
	require.NoError(t, fs.Parse(args))
	opts, _, err := parseMountOptions(options)
	require.NoError(t, err)
	return resolveConfig(fs, envOf(env), opts)
}

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "config.yaml")
	require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
	return name
}

func TestPrecedence(t *testing.T) {
	file := writeConfig(t, "region: file\nmetadata-ttl: 1s\nmemory: 128MiB\numask: 0077\nuid: 5\nread-only: true\nsse: none\n")
	env := map[string]string{"COFFER_CONFIG": file}
	with := func(more ...string) map[string]string {
		m := map[string]string{"COFFER_CONFIG": file}
		for i := 0; i < len(more); i += 2 {
			m[more[i]] = more[i+1]
		}
		return m
	}
	for _, c := range []struct {
		name    string
		args    []string
		env     map[string]string
		options string
		region  string
		ttl     time.Duration
	}{
		{"default", nil, nil, "", "", 10 * time.Second},
		{"file over default", nil, env, "", "file", time.Second},
		{"environment over file", nil, with("COFFER_REGION", "env", "COFFER_METADATA_TTL", "2s"), "", "env", 2 * time.Second},
		{"empty environment is unset", nil, with("COFFER_REGION", ""), "", "file", time.Second},
		{"-o over environment", nil, with("COFFER_REGION", "env"), "region=opt,metadata_ttl=3s", "opt", 3 * time.Second},
		{"flag over all", []string{"--region=flag", "--metadata-ttl=0s"}, with("COFFER_REGION", "env"), "region=opt,metadata-ttl=3s", "flag", 0},
		{"for ever", []string{"--read-only"}, map[string]string{"COFFER_METADATA_TTL": "indefinite"}, "", "", fs.Indefinite},
		{"never", nil, nil, "metadata-ttl=0", "", 0},
		{"flag chooses the file", []string{"--config", file}, map[string]string{"COFFER_CONFIG": "/absent"}, "", "file", time.Second},
		{"-o chooses the file", nil, nil, "config=" + file, "file", time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, err := resolve(t, c.args, c.env, c.options)
			require.NoError(t, err)
			require.Equal(t, c.region, cfg.Region)
			require.Equal(t, c.ttl, time.Duration(cfg.MetadataTTL))
		})
	}
	cfg, err := resolve(t, nil, env, "")
	require.NoError(t, err)
	require.Equal(t, byteSize(128<<20), cfg.Memory)
	require.Equal(t, octal(0o77), cfg.Umask)
	require.Equal(t, uint32(5), cfg.UID.or(99))
	require.Equal(t, uint32(99), cfg.GID.or(99))
	require.Equal(t, "none", cfg.SSE.value)
	require.True(t, cfg.ReadOnly)

	cfg, err = resolve(t, []string{"--read-only=false"}, env, "")
	require.NoError(t, err)
	require.False(t, cfg.ReadOnly, "a flag can take back what the file says")
}

func TestDefaultConfigFile(t *testing.T) {
	home := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(home, ".config/coffer"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(home, ".config/coffer/config.yaml"), []byte("region: home\n"), 0o600))
	cfg, err := resolve(t, nil, map[string]string{"HOME": home}, "")
	require.NoError(t, err)
	require.Equal(t, "home", cfg.Region)
}

func TestEncryptionRules(t *testing.T) {
	file := writeConfig(t, `
sse: aes256
encryption:
  - match: "scratch-*"
    sse: none
    allow-unencrypted: true
  - match: results/final/
`)
	cfg, err := resolve(t, []string{"--config=" + file}, nil, "")
	require.NoError(t, err)
	require.Len(t, cfg.Encryption, 2)
	require.Equal(t, "none", cfg.Encryption[0].SSE.value)
	require.True(t, cfg.Encryption[0].AllowUnencrypted)
	require.Equal(t, "results/final/", cfg.Encryption[1].Match)
	require.Equal(t, "auto", cfg.Encryption[1].SSE.value)

	sc, err := storeConfig(cfg, "", nil)
	require.NoError(t, err)
	rules := sc.Rules
	require.Len(t, rules, 3)
	require.Equal(t, "*", rules[2].Pattern)
	require.Equal(t, "AES256", rules[2].Encryption.SSEHeader())
}

func TestConfigErrors(t *testing.T) {
	for _, c := range []struct{ name, yaml, want string }{
		{"unknown key shows the line", "region: x\nregoin: y\n", "regoin"},
		{"unknown key of a rule", "encryption:\n  - match: b\n    mode: x\n", "mode"},
		{"bad choice", "sse: des\n", "not one of"},
		{"bad size", "memory: lots\n", "not a size"},
		{"bad octal", "umask: 0999\n", "octal"},
		{"bad type", "read-only: perhaps\n", "read-only"},
		{"rule without match", "encryption:\n  - sse: none\n", "match"},
		{"bad rule choice", "encryption:\n  - match: b\n    sse: x\n", "not one of"},
		{"repeated key", "region: a\nregion: b\n", "region"},
		{"not a mapping", "- a\n", "- a"},
		{"key without value", "uid:\n", "uid has no value"},
		{"rule's key without value", "encryption:\n  - match: b\n    sse: ~\n", "encryption[0].sse has no value"},
		{"two contradict", "anonymous: true\nprofile: x\n", "exclude"},
		{"plain objects and authentic ones", "cse-mode: auto\ncse-origin: authentic\n", "excludes"},
		{"bad time", "metadata-ttl: long\n", "indefinite"},
		{"negative time", "metadata-ttl: -1s\n", "indefinite"},
		{"for ever and writable", "metadata-ttl: indefinite\n", "--read-only"},
		{"tiny memory", "memory: 1MiB\n", "least"},
		{"umask takes all", "umask: 0777\n", "umask"},
		{"sizes of no profile", "cse-sizes: [bucket/prefix]\n", "BUCKET/PREFIX=own"},
		{"endpoint without scheme", "endpoint-url: s3.example.org\n", "https"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := resolve(t, []string{"--config=" + writeConfig(t, c.yaml)}, nil, "")
			require.ErrorContains(t, err, c.want)
			require.Equal(t, exitUsage, exitCode(err))
		})
	}
	_, err := resolve(t, []string{"--config=" + writeConfig(t, "region: x\n\nregoin: y\n")}, nil, "")
	require.Regexp(t, `(?m)>\s+3 \| regoin: y`, err.Error(), "the line is shown")
	_, err = resolve(t, []string{"--config=/no/such/file"}, nil, "")
	require.ErrorIs(t, err, os.ErrNotExist)
	require.Equal(t, exitUsage, exitCode(err))
	_, err = resolve(t, nil, map[string]string{"COFFER_SSE": "x"}, "")
	require.ErrorContains(t, err, "COFFER_SSE")
	require.Equal(t, exitUsage, exitCode(err))
}

func TestPathsBecomeAbsolute(t *testing.T) {
	t.Chdir(t.TempDir())
	wd, err := os.Getwd()
	require.NoError(t, err)
	cfg, err := resolve(t, []string{"--log-file=log", "--ca-file=ca.pem", "--scratch-dir=s"}, map[string]string{"COFFER_CONFIG": os.DevNull}, "")
	require.NoError(t, err)
	require.Equal(t, []string{wd + "/log", wd + "/ca.pem", wd + "/s"}, []string{cfg.LogFile, cfg.CAFile, cfg.ScratchDir})
}

func TestByteSize(t *testing.T) {
	for text, want := range map[string]byteSize{
		"0": 0, "auto": 0, "1": 1, "1k": 1 << 10, "1KB": 1 << 10, "2KiB": 2 << 10, "512MiB": 512 << 20, "3G": 3 << 30, "1 TiB": 1 << 40,
	} {
		var got byteSize
		require.NoError(t, got.Set(text), text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "-1", "1.5G", "G", "8388608T", "1X", "9223372036854775808"} {
		_, err := parseByteSize(text)
		require.Error(t, err, text)
	}
}

func TestSizeLimit(t *testing.T) {
	for text, want := range map[string]sizeLimit{"0": 0, "unlimited": 0, "64GiB": 64 << 30, "1k": 1 << 10} {
		var l, again sizeLimit
		require.NoError(t, l.Set(text), text)
		require.Equal(t, want, l, text)
		require.NoError(t, again.Set(l.String()), text)
		require.Equal(t, l, again, text)
	}
	for _, text := range []string{"", "auto", "none", "-1"} {
		var l sizeLimit
		require.Error(t, l.Set(text), text)
	}
}

func FuzzByteSize(f *testing.F) {
	f.Add("512MiB")
	f.Add("7")
	f.Fuzz(func(t *testing.T, text string) {
		n, err := parseByteSize(text)
		if err != nil {
			return
		}
		require.GreaterOrEqual(t, n, byteSize(0))
		var again byteSize
		require.NoError(t, again.Set(n.String()))
		require.Equal(t, n, again)
	})
}

func FuzzConfig(f *testing.F) {
	f.Add("region: x\nencryption:\n  - match: b\n    sse: none\n")
	f.Add("memory: 1G\numask: 0077 # c\nuid: \"5\"\n---\n")
	f.Add("a: &a [*a]\n<<: *a\n")
	f.Fuzz(func(t *testing.T, text string) {
		cfg := defaultConfig()
		if decodeConfig([]byte(text), &cfg) != nil {
			return
		}
		// What was accepted is within the choices, whatever the text.
		require.Contains(t, sseModes, cfg.SSE.value)
		for _, r := range cfg.Encryption {
			require.Contains(t, sseModes, r.SSE.value)
			require.NotEmpty(t, r.Match)
		}
		require.LessOrEqual(t, uint32(cfg.Umask), uint32(0o777))
	})
}

// Every setting must be reachable in all four ways under one name.
func TestEverySettingHasAYAMLKey(t *testing.T) {
	c := defaultConfig()
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	bindFlags(fs, &c, everyGroup...)
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Name == "config" {
			return
		}
		value := f.Value.String()
		switch value {
		case "", "own":
			value = "7"
		}
		if f.Name == "endpoint-url" {
			value = "https://x"
		}
		cfg := defaultConfig()
		require.NoError(t, decodeConfig([]byte(f.Name+": "+value+"\n"), &cfg), f.Name)
	})
}

// Settings without a flag are known to the other sources.
func TestSettingsWithoutFlags(t *testing.T) {
	_, _, errOut := runIn(t, "mount", "--nonempty", t.TempDir())
	require.Contains(t, errOut, "unknown flag")
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	opts, _, err := parseMountOptions("nonempty,list_version=1")
	require.NoError(t, err)
	env := func(name string) (string, bool) {
		return map[string]string{"COFFER_LOG_FORMAT": "json", "COFFER_CONFIG": os.DevNull}[name], name != "HOME"
	}
	cfg, err := resolveConfig(fs, env, opts)
	require.NoError(t, err)
	require.True(t, cfg.NonEmpty)
	require.Equal(t, "1", cfg.ListVersion.value)
	require.Equal(t, "json", cfg.LogFormat.value)
}

func TestDeclaredSizes(t *testing.T) {
	const value = "a/b:c=own:d=h=722;f=4096;s=105"
	want := declaredSizes{{Pattern: "a/b:c"}, {Pattern: "d", Profile: message.Profile{Header: 722, Frame: 4096, Footer: 105}}}
	file := map[string]string{"COFFER_CONFIG": writeConfig(t, "cse-sizes: [x=own, y=abci]\n")}
	cfg, err := resolve(t, nil, file, "")
	require.NoError(t, err)
	require.Equal(t, "x=own:y=abci", cfg.CSESizes.String())
	for _, c := range []struct {
		env     map[string]string
		options string
	}{
		{map[string]string{"COFFER_CSE_SIZES": value, "COFFER_CONFIG": file["COFFER_CONFIG"]}, ""},
		{map[string]string{"COFFER_CSE_SIZES": "z=own"}, "cse_sizes=" + value},
		{map[string]string{"COFFER_CONFIG": writeConfig(t, "cse-sizes: "+value+"\n")}, ""},
	} {
		cfg, err := resolve(t, nil, c.env, c.options)
		require.NoError(t, err)
		require.Equal(t, want, cfg.CSESizes)
	}
	_, err = resolve(t, nil, map[string]string{"COFFER_CSE_SIZES": "bucket=other"}, "")
	require.ErrorContains(t, err, "COFFER_CSE_SIZES")
}

func TestCacheSettings(t *testing.T) {
	dir := t.TempDir()
	for args, want := range map[string]string{
		"--cache-size 1G":                     "go with cache-dir",
		"--cache-key-file /k":                 "go with cache-dir",
		"--cache-dir /x --cache-size 1K":      "below the least",
		"--cache-dir /x --cache-size -5":      "is not a size",
		"--cache-dir /x --cache-size 10bytes": "is not a size",
	} {
		code, _, errOut := runIn(t, append(append([]string{"mount"}, strings.Fields(args)...), "s3://b", dir)...)
		require.Equal(t, exitUsage, code, args)
		require.Contains(t, errOut, want, args)
	}
}
