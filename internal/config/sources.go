package config

import (
	"fmt"
	"strings"
)

// checkSources completes the listed sources and appends the one that the
// top-level settings make.
func (l *loader) checkSources() {
	before := len(l.list)
	names := map[string]string{}
	for i := range l.cfg.Sources {
		l.checkSource(i, names)
	}
	switch l.cfg.Source {
	case KindFile:
		l.checkFileSettings()
	case KindLocal:
		l.checkLocalSettings()
	}
	if len(l.cfg.Sources) == 0 && len(l.list) == before {
		l.addf("federated-token-file", "not set, so there is nothing to prove an identity with: "+
			"set --federated-token-file (azure-workload-identity sets AZURE_FEDERATED_TOKEN_FILE), "+
			"or --source local with --issuer, --subject and --key-file")
	}
}

// localOnly are the top-level settings that only a local source uses.
var localOnly = []string{"issuer", "subject", "key-file", "assertion-lifetime"}

func (l *loader) checkFileSettings() {
	for _, name := range localOnly {
		if l.given(name) {
			l.addf(l.where(name), "is for --source local, and contradicts %s, which is %q: add --source local, or remove %s", l.mention("source"), KindFile, name)
		}
	}
	switch {
	case l.cfg.FederatedTokenFile != "":
		l.addImplicit(Source{Kind: KindFile, Path: l.cfg.FederatedTokenFile}, map[string]string{"path": "federated-token-file"})
	case l.given("source"):
		l.addf(l.where("source"), "%q needs --federated-token-file too: add it", KindFile)
	}
}

func (l *loader) checkLocalSettings() {
	c := l.cfg
	if l.cfg.from["federated-token-file"].explicit() {
		l.addf(l.where("federated-token-file"), "is for --source file, and contradicts %s, which is %q: remove one of them", l.mention("source"), KindLocal)
	} else if l.given("federated-token-file") {
		// The webhook sets the variable in every pod of its service accounts.
		c.FederatedTokenFile = ""
		c.from["federated-token-file"] = origin{text: "dropped by source: env AZURE_FEDERATED_TOKEN_FILE"}
	}
	var missing []string
	for _, name := range []string{"issuer", "subject", "key-file"} {
		if !l.given(name) {
			missing = append(missing, "--"+name)
		}
	}
	if len(missing) > 0 {
		l.addf(l.where("source"), "%q needs %s too: add what is missing", KindLocal, strings.Join(missing, " and "))
		return
	}
	l.addImplicit(
		Source{Kind: KindLocal, Issuer: c.Issuer, Subject: c.Subject, KeyFile: c.KeyFile, Lifetime: c.AssertionLifetime},
		map[string]string{"issuer": "issuer", "subject": "subject", "key-file": "key-file", "lifetime": "assertion-lifetime"})
}

// addImplicit appends the source made from the top-level settings. from says
// which setting each of its fields came from.
func (l *loader) addImplicit(s Source, from map[string]string) {
	s.Name, s.Audience = DefaultSourceName, l.cfg.Audience
	for i, other := range l.cfg.Sources {
		if other.Name == DefaultSourceName {
			l.addf(l.where(fmt.Sprintf("sources[%d].name", i)), "%q is the name of the source that %s makes: choose another name, or remove one of them",
				DefaultSourceName, l.mention(l.implicitSetting()))
		}
	}
	path := fmt.Sprintf("sources[%d]", len(l.cfg.Sources))
	l.cfg.from[path+".name"] = origin{text: "default"}
	l.cfg.from[path+".kind"] = derivedFrom("source")
	l.cfg.from[path+".audience"] = derivedFrom("audience")
	for field, name := range from {
		l.cfg.from[path+"."+field] = derivedFrom(name)
	}
	l.cfg.Sources = append(l.cfg.Sources, s)
}

// implicitSetting is the setting that most plainly makes the implicit source.
func (l *loader) implicitSetting() string {
	if l.cfg.Source == KindLocal {
		return "source"
	}
	return "federated-token-file"
}

// checkSource completes the listed source i. names holds the paths of the names
// seen so far.
func (l *loader) checkSource(i int, names map[string]string) {
	s, path := &l.cfg.Sources[i], fmt.Sprintf("sources[%d]", i)
	if s.Name == "" {
		l.addf(l.where(path), "no name: add one, for identities to refer to")
	}
	l.unique(path+".name", s.Name, names)
	switch s.Kind {
	case "":
		l.addf(l.where(path), "no kind: add one, %s or %s", KindFile, KindLocal)
	case KindFile:
		l.fit(path, KindFile, []string{"path"}, []string{"issuer", "subject", "key-file", "lifetime"})
	case KindLocal:
		l.fit(path, KindLocal, []string{"issuer", "subject", "key-file"}, []string{"path"})
		if s.Lifetime == 0 {
			s.Lifetime = defaultLifetime
			l.follow(path, "lifetime", "default")
		}
	}
	if s.Audience == "" {
		s.Audience = l.cfg.Audience
		l.follow(path, "audience", "derived from audience")
	}
}

// fit checks that the entry at path has what its kind needs and nothing that
// belongs to another kind.
func (l *loader) fit(path, kind string, needed, foreign []string) {
	for _, name := range needed {
		if !l.given(path + "." + name) {
			l.addf(l.where(path), "kind %s needs %s: add it", kind, name)
		}
	}
	for _, name := range foreign {
		if l.given(path + "." + name) {
			l.addf(l.where(path+"."+name), "contradicts %s, which is %q: remove it, or correct the kind", l.mention(path+".kind"), kind)
		}
	}
}

// follow notes that a field of the entry at path was filled in, and why. Its
// errors still point at the entry.
func (l *loader) follow(path, field, why string) {
	o := l.cfg.from[path]
	l.cfg.from[path+"."+field] = origin{text: why, path: o.path, line: o.line}
}

// unique refuses a value that an earlier entry has, in any case of letters. No
// value at all may be had by many.
func (l *loader) unique(path, value string, seen map[string]string) {
	if value == "" {
		return
	}
	fold := strings.ToLower(value)
	if first, taken := seen[fold]; taken {
		l.addf(l.where(path), "%s is already that of %s: correct one, or remove one of the entries", quote(value), l.mention(first))
		return
	}
	seen[fold] = path
}
