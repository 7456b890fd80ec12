package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode/utf8"
)

// kinds lists all kinds of source.
var kinds = []string{KindFile, KindLocal, KindSPIFFE, KindGitHub, KindGoogle, KindExec, KindURL}

// checkIssuerSettings makes the source of the top-level settings where another
// issuer makes its assertions.
func (l *loader) checkIssuerSettings() {
	c := l.cfg
	switch c.Source {
	case KindGitHub:
		l.addImplicit(Source{Kind: KindGitHub}, nil)
	case KindGoogle:
		l.addImplicit(Source{Kind: KindGoogle, MetadataHost: c.GoogleMetadataHost}, map[string]string{"metadata-host": "google-metadata-host"})
	case KindExec:
		if l.requires("exec-command") {
			l.addImplicit(Source{Kind: KindExec, Command: c.ExecCommand, Timeout: c.ExecTimeout},
				map[string]string{"command": "exec-command", "timeout": "exec-timeout"})
		}
	case KindURL:
		if l.requires("source-url") {
			l.checkRoots("source-url-ca-file", c.SourceURLCAFile)
			l.addImplicit(
				Source{Kind: KindURL, URL: c.SourceURL, BearerFile: c.SourceURLBearerFile, Field: c.SourceURLField, CAFile: c.SourceURLCAFile},
				map[string]string{"url": "source-url", "bearer-file": "source-url-bearer-file", "field": "source-url-field", "ca-file": "source-url-ca-file"})
		}
	}
}

// requires reports whether the setting that the chosen kind cannot do without
// is given.
func (l *loader) requires(name string) bool {
	if !l.given(name) {
		l.addf(l.where("source"), "%q needs --%s too: add it", l.cfg.Source, name)
		return false
	}
	return true
}

// checkIssuer completes the listed source at path, whose assertions another
// issuer makes.
func (l *loader) checkIssuer(path string, s *Source) {
	switch s.Kind {
	case KindGitHub:
		l.fit(path, KindGitHub, nil, nil)
	case KindGoogle:
		l.fit(path, KindGoogle, nil, []string{"metadata-host"})
	case KindExec:
		l.fit(path, KindExec, []string{"command"}, []string{"timeout"})
		if s.Timeout == 0 {
			s.Timeout = defaultExec
			l.follow(path, "timeout", "default")
		}
	case KindURL:
		l.fit(path, KindURL, []string{"url"}, []string{"bearer-file", "field", "ca-file"})
		l.checkRoots(path+".ca-file", s.CAFile)
	}
}

// checkRoots wants certificates in the file that the setting at key names.
func (l *loader) checkRoots(key, file string) {
	if file == "" {
		return
	}
	if err := checkCertificates(file); err != nil {
		l.addf(l.where(key), "%w: give a file of PEM certificates", err)
	}
}

const exampleCommand = `["/usr/local/bin/get-token", "--quiet"]`

// parseCommand takes a program alone, or a JSON list of it and its arguments. A
// command line is refused: there is no shell to read it. No error shows the
// arguments.
func parseCommand(s string) ([]string, error) {
	if !utf8.ValidString(s) {
		return nil, errors.New("the command is not UTF-8: write it so, or give it another name")
	}
	if !strings.HasPrefix(s, "[") {
		if hasSpace(s) {
			return nil, errors.New("the command holds white space: write the program and its arguments as a JSON list, such as " + exampleCommand)
		}
		return []string{s}, nil
	}
	var list []string
	if err := json.Unmarshal([]byte(s), &list); err != nil {
		return nil, errors.New("not a JSON list of texts: write the program and its arguments like " + exampleCommand)
	}
	if len(list) == 0 || list[0] == "" {
		return nil, errors.New("the list names no program: write the program and its arguments like " + exampleCommand)
	}
	return list, nil
}

// parseTokenURL accepts https, and http to loopback by its address. Placeholders are for the
// minter to check. No error shows the URL: a password may be in it.
func parseTokenURL(s string) (string, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || hasSpace(s) || u.Host == "":
		return "", errors.New("not a URL: write it like https://host/path")
	case u.User != nil:
		return "", errors.New("the URL holds a user or password: remove what precedes the @, and use --source-url-bearer-file")
	case u.Scheme != "https" && (u.Scheme != "http" || u.Hostname() == "localhost" || !isLoopback(u.Hostname())):
		return "", errors.New("the URL is neither https nor http to a loopback address (127.0.0.1 or [::1]), so tokens could be read on the way: write it like https://host/path")
	}
	return s, nil
}

// parseMember accepts names of JSON members with dots between them.
func parseMember(s string) (string, error) {
	if hasSpace(s) || len(s) > 200 || strings.Contains("."+s+".", "..") {
		return "", fmt.Errorf("%s is no member of a JSON object: write its name, or names with dots between them, such as data.token", quote(s))
	}
	return s, nil
}
