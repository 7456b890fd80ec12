package config

import (
	"errors"

	"github.com/spf13/pflag"
)

// loader makes one Config.
type loader struct {
	problems
	cfg *Config
	env map[string]string // once collected
}

// newLoader begins with the defaults that need no deriving.
func newLoader() *loader {
	l := &loader{cfg: &Config{from: map[string]origin{}}}
	for _, s := range settings {
		l.cfg.from[s.name] = origin{text: "default"}
		if s.def == "" {
			continue
		}
		if err := s.set(l.cfg, s.def); err != nil {
			panic("config: internal error: default of " + s.name + ": " + err.Error())
		}
	}
	return l
}

// candidate is one value given for a setting.
type candidate struct {
	value string
	from  origin
}

// inputs are the places that settings are given in.
type inputs struct {
	flags *pflag.FlagSet
	env   map[string]string
	file  map[string]candidate
}

// collect sets what is given, and refuses whatever is wrong by itself.
func (l *loader) collect(fs *pflag.FlagSet, environ []string) {
	in := inputs{flags: fs, env: environment(environ)}
	l.env = in.env
	l.refuseUnknown(fs, in.env)
	l.applyToCommand(fs, in.env)
	for _, s := range settings {
		l.apply(s, in.candidates(s))
		if s.name == "config" && l.cfg.ConfigFile != "" {
			in.file = l.readConfig()
		}
	}
	l.readIdentities(in.env)
}

// candidates gives all values of s, the one that wins last. Those written for
// svidecar must all be valid; an ambient one is nobody's intention once
// outranked, and is dropped.
func (in inputs) candidates(s setting) []candidate {
	var own []candidate
	if c, ok := in.file[s.name]; ok {
		own = append(own, c)
	}
	if v := in.env[s.env()]; v != "" {
		own = append(own, candidate{v, fromEnv(s.env(), rankEnv)})
	}
	for _, word := range in.words(s) {
		own = append(own, candidate{word, fromFlag(s.name)})
	}
	if len(own) > 0 {
		return own
	}
	for _, name := range s.ambient {
		if v := in.env[name]; v != "" {
			return []candidate{{v, fromEnv(name, rankAmbient)}}
		}
	}
	return nil
}

// words gives what the flag of s was set to: one word, or several if it was
// wrongly repeated. The words of a list are one value.
func (in inputs) words(s setting) []string {
	if in.flags == nil {
		return nil
	}
	f := in.flags.Lookup(s.name)
	if f == nil {
		return nil
	}
	v, ok := f.Value.(*flagValue)
	if ok && s.kind == list && len(v.words) > 1 {
		return []string{v.String()}
	}
	if !ok {
		return nil
	}
	return v.words
}

var (
	errEmpty    = errors.New("the value is empty: give one, or leave the setting out")
	errRepeated = errors.New("the flag is given twice: give it once")
)

// apply sets s to each candidate in turn, so that the last one wins.
func (l *loader) apply(s setting, candidates []candidate) {
	for _, c := range candidates {
		err := errEmpty
		switch {
		case l.cfg.from[s.name] == c.from:
			err = errRepeated
		case c.value != "":
			err = s.set(l.cfg, c.value)
		}
		if err != nil {
			l.add(c.from.prefix(s.name), err)
		}
		l.cfg.from[s.name] = c.from
	}
}

// derive makes the values that are not given from those that are.
func (l *loader) derive() {
	for _, s := range settings {
		if s.derive == nil || l.cfg.from[s.name].given() {
			continue
		}
		v, from := s.derive(l.cfg)
		if v == "" {
			continue
		}
		if err := s.set(l.cfg, v); err != nil {
			panic("config: internal error: derived " + s.name + ": " + err.Error())
		}
		if l.cfg.from[from].text != "default" {
			l.cfg.from[s.name] = derivedFrom(from)
		}
	}
}

// where begins an error about the value at key, such as "listen" or
// "identities[0].name".
func (l *loader) where(key string) string { return l.cfg.from[key].prefix(key) }

// mention names the value at key in the middle of an error.
func (l *loader) mention(key string) string { return l.cfg.from[key].mention(key) }

// given reports whether someone wrote down the value at key.
func (l *loader) given(key string) bool { return l.cfg.from[key].given() }
