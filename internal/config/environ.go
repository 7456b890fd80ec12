package config

import (
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// environment is environ as a map without empty values.
func environment(environ []string) map[string]string {
	env := map[string]string{}
	for _, pair := range environ {
		name, value, _ := strings.Cut(pair, "=")
		if _, again := env[name]; value != "" && !again { // as os.Getenv: the first one counts
			env[name] = value
		}
	}
	return env
}

// commandVariables stand for the flags of single commands that are no settings.
// All commands know them, so that one environment serves all.
var commandVariables = []string{
	"SVIDECAR_BITS", "SVIDECAR_CLAIMS", "SVIDECAR_EXPORT", "SVIDECAR_IDENTITY",
	"SVIDECAR_ISSUER_LISTEN", "SVIDECAR_JSON", "SVIDECAR_METHOD", "SVIDECAR_OUTPUT_FILE", "SVIDECAR_PRINT_CONFIG", "SVIDECAR_PUBLICATION_WAIT",
	"SVIDECAR_RAW", "SVIDECAR_RESOURCE", "SVIDECAR_SOURCE_NAME", "SVIDECAR_TIMEOUT", "SVIDECAR_TLS_CERT_FILE",
	"SVIDECAR_TLS_KEY_FILE", "SVIDECAR_TO_PORT", "SVIDECAR_UNSAFE_NOW",
	"SVIDECAR_WORKLOAD_API", "SVIDECAR_WORKLOAD_IDENTITIES",
}

// CommandVariables returns the variables of flags that are no settings.
func CommandVariables() []string { return slices.Clone(commandVariables) }

// refuseUnknown knows the variables of the settings, of all commands' flags and
// of what a subject may hold.
func (l *loader) refuseUnknown(fs *pflag.FlagSet, env map[string]string) {
	known, unknown := append(CommandVariables(), identitiesEnv), []string(nil)
	commandFlags(fs, func(f *pflag.Flag) { known = append(known, envOf(f.Name)) })
	for _, s := range settings {
		known = append(known, s.env())
	}
	_, variables := templateVariableNames()
	known = append(known, variables...)
	for name := range env {
		if isOurs(name) && !slices.Contains(known, name) && !isServiceLink(name, env) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	for _, name := range unknown {
		l.addf("environment", "unknown variable %s%s", quote(name), didYouMean(name, known, "unset it; --help lists the variables"))
	}
}

// isOurs is blind to case, so that a variable in lower case is not overlooked.
func isOurs(name string) bool {
	return len(name) >= len(envPrefix) && strings.EqualFold(name[:len(envPrefix)], envPrefix)
}

// isServiceLink reports whether Kubernetes made the variable: into every pod it
// injects SVIDECAR_SERVICE_HOST, SVIDECAR_PORT_8000_TCP_ADDR and the like for a
// Service called svidecar, or SVIDECAR_WEBHOOK_… for svidecar-webhook. They are
// known by the _SERVICE_HOST that always comes with them.
func isServiceLink(name string, env map[string]string) bool {
	for _, mark := range []string{"_SERVICE_HOST", "_SERVICE_PORT", "_PORT"} {
		for at := range len(name) {
			end := at + len(mark)
			if !strings.HasPrefix(name[at:], mark) || (end < len(name) && name[end] != '_') {
				continue
			}
			if _, ok := env[name[:at]+"_SERVICE_HOST"]; ok {
				return true
			}
		}
	}
	return false
}
