package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// mountOption is one known option of -o, mapped to the flag that it stands for.
type mountOption struct {
	name  string // as written, for messages
	flag  string
	value string
}

// mountFlags are options of -o that the kernel, not Coffer, gives a meaning.
// Those that change what a mount permits must reach the kernel.
type mountFlags struct {
	NoExec bool
}

// ignoredOptions are accepted and change nothing: mount(8), systemd and fstab
// pass them, or they state what holds anyway (default_permissions, nosuid,
// nodev, and no access times to keep). suid and dev are what mount(8) adds for root; they only permit, and
// leaving out a permission is safe.
var ignoredOptions = map[string]bool{
	"defaults": true, "auto": true, "noauto": true, "nofail": true, "_netdev": true, "user": true, "users": true,
	"nouser": true, "owner": true, "group": true, "suid": true, "nosuid": true, "dev": true, "nodev": true,
	"exec": true, "async": true, "atime": true, "noatime": true, "relatime": true, "norelatime": true, "strictatime": true,
	"nostrictatime": true, "diratime": true, "nodiratime": true, "lazytime": true, "nolazytime": true,
	"default_permissions": true, "silent": true, "loud": true, "comment": true,
}

// refusedOptions would be a false promise; the text says why.
var refusedOptions = map[string]string{
	"sync":       "data is committed at close and fsync; there is no other synchronous mode",
	"remount":    "unmount and mount again to change options",
	"allow_root": "use allow_other",
}

// parseMountOptions parses the argument of -o: options separated by commas,
// NAME or NAME=VALUE, underscores and dashes alike; a backslash protects a
// comma or a backslash. An option that is not known is an error, because a
// misspelt one would be silently without effect otherwise.
func parseMountOptions(text string) (opts []mountOption, kernel mountFlags, err error) {
	kinds := settingKinds()
	for _, item := range splitOptions(text) {
		if item == "" {
			continue
		}
		name, value, hasValue := strings.Cut(item, "=")
		switch {
		case strings.HasPrefix(name, "x-") || strings.HasPrefix(name, "X-") || ignoredOptions[name]:
			continue
		case refusedOptions[name] != "":
			return nil, kernel, fmt.Errorf("mount option %q: %s", name, refusedOptions[name])
		case name == "ro" || name == "rw":
			opts = append(opts, mountOption{name, "read-only", fmt.Sprint(name == "ro")})
			continue
		case name == "noexec":
			kernel.NoExec = true
			continue
		}
		flag := strings.ReplaceAll(name, "_", "-")
		isBool, known := kinds[flag]
		switch {
		case !known:
			return nil, kernel, fmt.Errorf("unknown mount option %q", name)
		case isBool && !hasValue:
			value = "true"
		case !hasValue:
			return nil, kernel, fmt.Errorf("mount option %q needs a value, as in %s=VALUE", name, name)
		}
		opts = append(opts, mountOption{name, flag, value})
	}
	return opts, kernel, nil
}

// splitOptions splits at commas that no backslash precedes, and resolves the
// backslashes before commas and backslashes, as libfuse does.
func splitOptions(text string) []string {
	var items []string
	var item strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text) && (text[i+1] == ',' || text[i+1] == '\\'):
			i++
			item.WriteByte(text[i])
		case c == ',':
			items = append(items, item.String())
			item.Reset()
		default:
			item.WriteByte(c)
		}
	}
	return append(items, item.String())
}

// settingKinds returns the names of all settings of a mount and whether each
// is a switch that needs no value.
func settingKinds() map[string]bool {
	c := defaultConfig()
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	bindFlags(fs, &c, groupUnlisted)
	bindFlags(fs, &c, everyGroup...)
	kinds := map[string]bool{}
	fs.VisitAll(func(f *pflag.Flag) { kinds[f.Name] = f.Value.Type() == "bool" })
	return kinds
}

// options returns the kernel's options in the words of mount(8).
func (k mountFlags) options() []string {
	var o []string
	if k.NoExec {
		o = append(o, "noexec")
	}
	return o
}
