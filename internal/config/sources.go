package config

import (
	"fmt"
	"slices"
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
	l.checkForeignSettings()
	switch l.cfg.Source {
	case KindFile:
		l.checkFileSettings()
	case KindLocal:
		l.checkLocalSettings()
	case KindSPIFFE:
		l.checkSPIFFESettings()
	default:
		l.checkIssuerSettings()
	}
	if len(l.cfg.Sources) == 0 && len(l.list) == before {
		l.addf("federated-token-file", "not set, so there is nothing to prove an identity with: "+
			"set --federated-token-file (azure-workload-identity sets AZURE_FEDERATED_TOKEN_FILE), "+
			"--source spiffe with --spiffe-socket, --source local with --subject and --key-dir (or --key-file and --issuer), or --source github, google, exec or url")
	}
}

// ownSettings are the top-level settings that not every kind of source uses.
var ownSettings = []struct {
	name  string
	kinds []string
	drop  func(*Config) // of those that have a variable which is not ours
}{
	{"federated-token-file", []string{KindFile}, func(c *Config) { c.FederatedTokenFile = "" }},
	{"issuer", []string{KindLocal}, nil},
	{"subject", []string{KindLocal, KindSPIFFE}, nil},
	{"key-file", []string{KindLocal}, nil},
	{"key-dir", []string{KindLocal}, nil},
	{"rotate-every", []string{KindLocal}, nil},
	{"unsafe-unpublished-key", []string{KindLocal}, nil},
	{"assertion-lifetime", []string{KindLocal}, nil},
	{"spiffe-socket", []string{KindSPIFFE}, func(c *Config) { c.SPIFFESocket = "" }},
	{"spiffe-hint", []string{KindSPIFFE}, nil},
	{"spiffe-verify", []string{KindSPIFFE}, nil},
	{"google-metadata-host", []string{KindGoogle}, func(c *Config) { c.GoogleMetadataHost = "" }},
	{"exec-command", []string{KindExec}, nil},
	{"exec-timeout", []string{KindExec}, nil},
	{"source-url", []string{KindURL}, nil},
	{"source-url-bearer-file", []string{KindURL}, nil},
	{"source-url-field", []string{KindURL}, nil},
	{"source-url-ca-file", []string{KindURL}, nil},
}

// checkForeignSettings refuses what belongs to another kind of source than the
// chosen one, and drops what only surrounds us: the webhook sets its variable in
// every pod of its service accounts, and SPIFFE's is set for all programs.
func (l *loader) checkForeignSettings() {
	for _, own := range ownSettings {
		from := l.cfg.from[own.name]
		switch {
		case !from.given() || slices.Contains(own.kinds, l.cfg.Source):
		case from.explicit():
			l.addf(l.where(own.name), "is for --source %s, and contradicts %s, which is %q: add --source %s, or remove %s",
				strings.Join(own.kinds, " or "), l.mention("source"), l.cfg.Source, own.kinds[0], own.name)
		default:
			own.drop(l.cfg)
			l.cfg.from[own.name] = origin{text: "dropped by source: " + from.text}
		}
	}
}

func (l *loader) checkFileSettings() {
	switch {
	case l.cfg.FederatedTokenFile != "":
		l.addImplicit(Source{Kind: KindFile, Path: l.cfg.FederatedTokenFile}, map[string]string{"path": "federated-token-file"})
	case l.given("source"):
		l.addf(l.where("source"), "%q needs --federated-token-file too: add it", KindFile)
	}
}

func (l *loader) checkLocalSettings() {
	c := l.cfg
	var missing []string
	for _, name := range l.localNeeds("") {
		if !l.given(name) {
			missing = append(missing, "--"+name)
		}
	}
	if !l.given("issuer") && !l.given("key-file") && !l.given("key-dir") {
		missing = slices.DeleteFunc(missing, func(name string) bool { return name == "--issuer" || name == "--key-file" })
		missing = append(missing, "--key-dir (or --key-file and --issuer)")
	}
	if len(missing) > 0 {
		l.addf(l.where("source"), "%q needs %s too: add what is missing", KindLocal, strings.Join(missing, " and "))
		return
	}
	l.checkKeys("")
	l.expandSubject("subject", &c.Subject)
	l.addImplicit(
		Source{
			Kind: KindLocal, Issuer: c.Issuer, Subject: c.Subject, KeyFile: c.KeyFile, KeyDir: c.KeyDir, Lifetime: c.AssertionLifetime,
			RotateEvery: c.RotateEvery, UnsafeUnpublished: c.UnsafeUnpublished,
		},
		map[string]string{
			"issuer": "issuer", "subject": "subject", "key-file": "key-file", "key-dir": "key-dir", "lifetime": "assertion-lifetime",
			"rotate-every": "rotate-every", "unsafe-unpublished-key": "unsafe-unpublished-key",
		})
}

// localNeeds names what a local source at path must have: a directory of keys
// knows its issuer.
func (l *loader) localNeeds(path string) []string {
	if l.given(path + "key-dir") {
		return []string{"subject"}
	}
	return []string{"issuer", "subject", "key-file"}
}

// checkKeys refuses two places of keys, and what only a directory understands.
func (l *loader) checkKeys(path string) {
	if l.given(path + "key-dir") {
		if l.given(path + "key-file") {
			l.addf(l.where(path+"key-dir"), "contradicts %s, which names a key too: remove one of them", l.mention(path+"key-file"))
		}
		return
	}
	for _, name := range []string{"rotate-every", "unsafe-unpublished-key"} {
		if l.given(path + name) {
			l.addf(l.where(path+name), "needs key-dir: a single key file is not rotated; add key-dir, or remove %s", name)
		}
	}
}

func (l *loader) checkSPIFFESettings() {
	c := l.cfg
	if c.SPIFFESocket == "" {
		l.addf(l.where("source"), "%q needs --spiffe-socket too (or SPIFFE_ENDPOINT_SOCKET): add it, such as unix:///run/spire/agent/public/api.sock", KindSPIFFE)
		return
	}
	l.chooseOnce("subject", "spiffe-hint")
	l.refuseTemplate("subject", c.Subject)
	l.addImplicit(
		Source{Kind: KindSPIFFE, Socket: c.SPIFFESocket, Subject: c.Subject, Hint: c.SPIFFEHint, Verify: c.SPIFFEVerify},
		map[string]string{"socket": "spiffe-socket", "subject": "subject", "hint": "spiffe-hint", "verify": "spiffe-verify"})
}

// chooseOnce refuses two ways of choosing among several SVIDs.
func (l *loader) chooseOnce(subject, hint string) {
	if l.given(subject) && l.given(hint) {
		l.addf(l.where(hint), "contradicts %s, which chooses too: remove one of them", l.mention(subject))
	}
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
	if l.cfg.Source == KindFile {
		return "federated-token-file"
	}
	return "source"
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
		l.addf(l.where(path), "no kind: add one of %s", strings.Join(kinds, ", "))
	case KindFile:
		l.fit(path, KindFile, []string{"path"}, nil)
	case KindLocal:
		l.fit(path, KindLocal, l.localNeeds(path+"."), []string{"issuer", "key-file", "key-dir", "rotate-every", "unsafe-unpublished-key", "lifetime"})
		l.checkKeys(path + ".")
		l.expandSubject(path+".subject", &s.Subject)
		if s.Lifetime == 0 {
			s.Lifetime = defaultLifetime
			l.follow(path, "lifetime", "default")
		}
	case KindSPIFFE:
		l.fit(path, KindSPIFFE, []string{"socket"}, []string{"subject", "hint", "verify"})
		l.chooseOnce(path+".subject", path+".hint")
		l.refuseTemplate(path+".subject", s.Subject)
	default:
		l.checkIssuer(path, s)
	}
	if s.Audience == "" {
		s.Audience = l.cfg.Audience
		l.follow(path, "audience", "derived from audience")
	}
}

// everyKind has these fields.
var everyKind = []string{"name", "kind", "audience"}

// fit checks that the entry at path has what its kind needs and nothing that
// belongs to another kind.
func (l *loader) fit(path, kind string, needed, optional []string) {
	for _, name := range needed {
		if !l.given(path + "." + name) {
			l.addf(l.where(path), "kind %s needs %s: add it", kind, name)
		}
	}
	for _, f := range sourceFields {
		if !l.given(path+"."+f.name) || slices.Contains(everyKind, f.name) || slices.Contains(needed, f.name) || slices.Contains(optional, f.name) {
			continue
		}
		l.addf(l.where(path+"."+f.name), "contradicts %s, which is %q: remove it, or correct the kind", l.mention(path+".kind"), kind)
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
