package config

import (
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/svidecar/svidecar/internal/secret"
)

// Register defines the flags of the settings named on fs, or of all if none is
// named. Values are checked by [Load], not by fs.Parse, since the parser's own
// errors would show a secret.
//
// The flags that fs has already, which belong to one command and are no
// settings, get their variable too: Load sets each from SVIDECAR_ and its name.
func Register(fs *pflag.FlagSet, names ...string) {
	fs.VisitAll(func(f *pflag.Flag) {
		if commandLineOnly(f) {
			f.Usage += " (command line only)"
			return
		}
		f.Usage += " (env " + envOf(f.Name) + ")"
	})
	for _, s := range settings {
		if len(names) > 0 && !slices.Contains(names, s.name) {
			continue
		}
		f := fs.VarPF(&flagValue{setting: s}, s.name, "", s.usageText())
		if s.kind == boolean {
			f.NoOptDefVal = "true"
		}
	}
}

const onlyAnnotation = "svidecar_command_line_only"

// CommandLineOnly keeps flags of fs, which must exist, from having a variable.
// It is for those that turn a command into another one: a variable that somebody
// else set, for all containers of a pod, must not do that. Call it before
// [Register].
func CommandLineOnly(fs *pflag.FlagSet, names ...string) {
	for _, name := range names {
		if err := fs.SetAnnotation(name, onlyAnnotation, []string{"true"}); err != nil {
			panic("config: " + err.Error())
		}
	}
}

func commandLineOnly(f *pflag.Flag) bool { return f.Annotations[onlyAnnotation] != nil }

// commandFlags calls do for the flags of fs that are no settings and have a
// variable.
func commandFlags(fs *pflag.FlagSet, do func(*pflag.Flag)) {
	if fs == nil {
		return
	}
	fs.VisitAll(func(f *pflag.Flag) {
		if _, ok := f.Value.(*flagValue); !ok && f.Name != "help" && !commandLineOnly(f) {
			do(f)
		}
	})
}

// applyToCommand sets the command's own flags from their variables, where the
// command line does not.
func (l *loader) applyToCommand(fs *pflag.FlagSet, env map[string]string) {
	commandFlags(fs, func(f *pflag.Flag) {
		v := env[envOf(f.Name)]
		if v == "" || f.Changed {
			return
		}
		if err := fs.Set(f.Name, v); err != nil {
			l.addf(fromEnv(envOf(f.Name), rankEnv).prefix(f.Name), "%s is not a %s", quote(v), f.Value.Type())
		}
	})
}

func (s setting) usageText() string {
	names := append([]string{s.env()}, s.ambient...)
	return s.usage + " (env " + strings.Join(names, ", ") + ")"
}

// flagValue implements [pflag.Value]: it keeps the words and judges none.
type flagValue struct {
	setting setting
	words   []string
}

func (v *flagValue) Set(s string) error {
	v.words = append(v.words, s)
	return nil
}

func (v *flagValue) Type() string { return v.setting.kind.String() }

// String is the default as --help shows it, or what was given.
func (v *flagValue) String() string {
	switch {
	case v.setting.name == "": // pflag asks a zero value too
		return ""
	case len(v.words) == 0:
		return v.setting.def
	case v.setting.secret:
		return secret.Redacted
	}
	return strings.Join(v.words, ",")
}

// Flags gives the settings that are not at their default as flags, sorted as in
// --help: parsing them into a registered set and calling [Load] with an empty
// environment gives an equal Config. Two things do not fit into flags: a secret
// is left out, so IdentityHeader survives only by way of IdentityHeaderFile or
// of the file named by ConfigFile; and Identities and Sources survive only by
// way of that file. With a ConfigFile, flags and variables that restate a
// default are kept, because they outrank the file. A subject's variables are
// replaced; those of listed sources need the environment again.
func (c *Config) Flags() []string {
	var flags []string
	for _, s := range settings {
		if v := s.get(c); v != "" && !s.secret && c.mustState(s, v) {
			flags = append(flags, "--"+s.name+"="+v)
		}
	}
	return flags
}

// mustState reports whether the setting's value v would be lost without a flag.
func (c *Config) mustState(s setting, v string) bool {
	if c.ConfigFile != "" && c.from[s.name].rank > rankFile {
		return true
	}
	def := s.def
	if def == "" && s.derive != nil {
		def, _ = s.derive(c)
	}
	return v != def
}
