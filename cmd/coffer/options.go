package main

import (
	"github.com/spf13/pflag"
)

// Groups of flags, in the order of the help text.
const (
	groupEndpoint   = "Endpoint and credentials"
	groupEncryption = "Encryption"
	groupFileSystem = "File system"
	groupResources  = "Memory and local disk"
	groupLogging    = "Logging and configuration"
	groupProcess    = "Process"
	// groupUnlisted has no flags: these are set by file, environment and -o.
	groupUnlisted = "Unlisted"
)

var everyGroup = []string{groupEndpoint, groupEncryption, groupFileSystem, groupResources, groupLogging}

// storeGroups are the flags of commands that talk to a store and mount nothing.
var storeGroups = []string{groupEndpoint, groupEncryption, groupLogging}

const groupAnnotation = "coffer-group"

// bindFlags defines the flags of the groups on fs, with the values of c as
// defaults; parsing fs writes into c. Every setting of a mount is defined
// here and nowhere else.
func bindFlags(fs *pflag.FlagSet, c *Config, groups ...string) {
	for _, g := range groups {
		part := pflag.NewFlagSet(g, pflag.ContinueOnError)
		switch g {
		case groupEndpoint:
			bindEndpoint(part, c)
		case groupEncryption:
			bindEncryption(part, c)
		case groupFileSystem:
			bindFileSystem(part, c)
		case groupResources:
			bindResources(part, c)
		case groupLogging:
			bindLogging(part, c)
		case groupUnlisted:
			bindUnlisted(part, c)
		}
		part.VisitAll(func(f *pflag.Flag) { fs.AddFlag(inGroup(f, g)) })
	}
}

// inGroup marks a flag as a member of a group of the help text.
func inGroup(f *pflag.Flag, group string) *pflag.Flag {
	if f.Annotations == nil {
		f.Annotations = map[string][]string{}
	}
	f.Annotations[groupAnnotation] = []string{group}
	return f
}

func bindEndpoint(fs *pflag.FlagSet, c *Config) {
	fs.StringVar(&c.EndpointURL, "endpoint-url", c.EndpointURL, "the store's `URL`; else AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, the profile's endpoint_url, AWS itself")
	fs.StringVar(&c.Region, "region", c.Region, "`name` of the region; else AWS_REGION, the profile's, what the store answers")
	fs.StringVar(&c.Profile, "profile", c.Profile, "`name` of the profile in ~/.aws/config and ~/.aws/credentials; else AWS_PROFILE")
	fs.Var(&c.PathStyle, "path-style", "address buckets as URL/bucket (on) or bucket.host (off)")
	fs.StringVar(&c.CAFile, "ca-file", c.CAFile, "PEM `file` of certificates to trust besides the system's")
	fs.BoolVar(&c.Anonymous, "anonymous", c.Anonymous, "sign nothing: public buckets without credentials")
	fs.BoolVar(&c.AllowHTTP, "allow-http", c.AllowHTTP, "allow plain http to a host that is not this one: data travels in the clear")
}

func bindEncryption(fs *pflag.FlagSet, c *Config) {
	fs.Var(&c.SSE, "sse", "server-side encryption of new objects. auto: the bucket's own default where it proves to have one, else AES256; aes256: always ask for SSE-S3; kms, kms-dsse: for one or two layers under a key of a KMS; customer: SSE-C, under a key that is sent with every request; none: ask for nothing")
	fs.StringVar(&c.KMSKeyID, "sse-kms-key-id", c.KMSKeyID, "`id`, alias or ARN of the key for --sse kms and kms-dsse (default: the store's default key)")
	fs.Var(&c.CustomerKeyFiles, "sse-customer-key-file", "`file` with a customer key (SSE-C): 32 bytes, or their hex or base64, of mode 0600. May be given several times: new objects get the first key, all are tried for reading, whatever --sse says")
	fs.StringVar(&c.CSEKeyring, "cse-keyring", c.CSEKeyring, "`file` with the keys for encryption on this side, before anything is sent: every new object is encrypted for them, whether the store encrypts or not, and only such objects are read")
	fs.BoolVar(&c.AllowUnencrypted, "allow-unencrypted", c.AllowUnencrypted, "write also into buckets that do not encrypt, and make buckets that cannot be proved to")
}

func bindFileSystem(fs *pflag.FlagSet, c *Config) {
	fs.BoolVar(&c.ReadOnly, "read-only", c.ReadOnly, "no change to the store, no probe objects either")
	fs.Var(&c.Attributes, "attributes", "list: size and time from listings, owner and mode from the options below, no request for each file; full: mode, owner, mtime and symbolic links as stored with the object; auto: list when read-only, full otherwise")
	fs.Var(&c.Exclusive, "exclusive", "when it is decided which of several machines has created a file with O_EXCL. close: by the first that closes it, the others are told by close; open: by open, at the cost of one more request")
	fs.Var(&c.Unlink, "unlink", "when an object is deleted. now: before unlink returns; batched: up to 1,000 at a time, within 100ms, and before rmdir or fsync of the directory returns, which tell what failed")
	fs.Var(&c.MetadataTTL, "metadata-ttl", "how long names and attributes are believed without asking the store; own changes are seen at once. 0 asks every time; indefinite, with --read-only, is for data that nobody changes: what was asked for once is not asked for again, not even by open")
	fs.DurationVar(&c.AbsentTTL, "absent-ttl", c.AbsentTTL, "how long a name is believed to be absent that was not in a listing: 1s saves two of the three requests for each file that is unpacked or copied into a directory, and hides what others make there as long")
	fs.Var(&c.UID, "uid", "owner of files that have none stored (default: the mounting user)")
	fs.Var(&c.GID, "gid", "group of files that have none stored (default: the mounting user's)")
	// The text says what the default is; "own" alone would not.
	fs.Lookup("uid").DefValue, fs.Lookup("gid").DefValue = "", ""
	fs.Var(&c.Umask, "umask", "permission bits taken away from files and directories that have no mode stored")
	fs.BoolVar(&c.AllowOther, "allow-other", c.AllowOther, "let other users in (needs user_allow_other in /etc/fuse.conf unless root)")
}

func bindResources(fs *pflag.FlagSet, c *Config) {
	fs.Var(&c.Memory, "memory", "budget of the cache, read-ahead and parts in flight (auto: a sixteenth of the memory or of the cgroup's limit, 64MiB to 256MiB)")
	fs.StringVar(&c.ScratchDir, "scratch-dir", c.ScratchDir, "`directory` for encrypted temporary files (default: the first of $PBS_LOCALDIR, $SLURM_TMPDIR, $TMPDIR, /tmp that exists)")
	fs.StringVar(&c.CacheDir, "cache-dir", c.CacheDir, "`directory` for a cache on disk, below the one in memory, encrypted (default: none)")
	fs.Var(&c.CacheSize, "cache-size", "most that is kept there (auto: a tenth of what is free at the start); 5 % of the file system stay free in any case")
	fs.StringVar(&c.CacheKeyFile, "cache-key-file", c.CacheKeyFile, "`file` with the key of the cache on disk, which lets it outlive the mount and be shared by mounts: 32 bytes, or their hex or base64, of mode 0600 (default: a random key, and the cache goes with the mount)")
	fs.Var(&c.Rescue, "rescue", "what becomes of data that could not be stored when its file was closed. file: an encrypted file in the scratch directory, for coffer rescue; mount: kept as long as the mount, which umount then refuses to end; off: dropped")
	fs.StringVar(&c.RescueKeyFile, "rescue-key-file", c.RescueKeyFile, "`file` with the key for such files: 32 bytes, or their hex or base64, of mode 0600 (default: a random key that the kernel keeps until the machine restarts)")
}

func bindLogging(fs *pflag.FlagSet, c *Config) {
	fs.StringVar(&c.LogFile, "log-file", c.LogFile, "append the log to this `file` (default: stderr in the foreground, a small file beside the control socket otherwise)")
	fs.Var(&c.LogLevel, "log-level", "least level that is logged")
	// The value is read from the flag set by resolveConfig: which file is
	// read cannot be a setting in that file.
	fs.String("config", "", "config `file` (default: ~/.config/coffer/config.yaml, else /etc/coffer/config.yaml)")
}

// bindUnlisted defines what few people set, beside the flags.
func bindUnlisted(fs *pflag.FlagSet, c *Config) {
	fs.BoolVar(&c.RequesterPays, "requester-pays", c.RequesterPays, "agree to pay for requests to buckets that ask for it")
	fs.Var(&c.CSEMode, "cse-mode", "what is read with cse-keyring. require: what its keys open, and nothing else; auto: objects that are not encrypted by a client as well; off: no encryption on this side")
	fs.Var(&c.CSEBinding, "cse-binding", "objects are bound to their path; one that is not at its own, because somebody has exchanged it, is logged (warn) or not read (strict)")
	fs.Var(&c.CSESigned, "cse-signed", "what is done with messages that are signed. auto: up to 64 MiB the signature is verified when the file is opened; strict: always; reject: none is read")
	fs.Var(&c.CSEOrigin, "cse-origin", "whose messages are read. any: what the keys open; authentic: what AES keys and keys of a KMS open, for under RSA keys everybody can write who has the public one")
	fs.BoolVar(&c.CSEAnySuite, "cse-any-suite", c.CSEAnySuite, "read messages of suites too that do not commit to their key")
	fs.Var(&c.CSERewriteMax, "cse-rewrite-max", "longest file of which some can be changed with cse-keyring, or to which some can be appended: all of it is encrypted and sent anew for that, and a change of a longer one is refused with EFBIG; unlimited refuses none")
	fs.Var(&c.CSESizes, "cse-sizes", "objects whose messages have one form, so that listings tell their sizes: BUCKET/PREFIX=own, =abci or =h=722;f=4096;s=105, with colons between them")
	fs.Var(&c.ListVersion, "list-version", "version of the listing call; auto doubts answers that look cut short")
	fs.BoolVar(&c.NonEmpty, "nonempty", c.NonEmpty, "mount over a directory that is not empty")
	fs.Var(&c.LogFormat, "log-format", "form of log lines")
}

// settingArgs returns the settings that were given as flags, as arguments.
func settingArgs(fs *pflag.FlagSet) []string {
	var args []string
	fs.Visit(func(f *pflag.Flag) {
		if len(f.Annotations[groupAnnotation]) > 0 {
			args = append(args, "--"+f.Name+"="+f.Value.String())
		}
	})
	return args
}
