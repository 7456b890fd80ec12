package inject

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// tellContainers gives the app's containers what they need to reach the sidecar.
func (m *mutation) tellContainers(w wish, sidecar container) {
	m.warnOfNames(ours+"skip-containers", w.skip)
	address := "http://" + sidecar.value(variable("listen"))
	header := sidecar.value(variable("identity-header"))
	for _, c := range m.pod.users() {
		switch {
		case slices.Contains(w.skip, c.name()):
		case m.mode == ModeEnv:
			m.addEndpoint(c, address+"/msi/token", header)
			m.addVariable(c, "AZURE_POD_IDENTITY_AUTHORITY_HOST", address)
			m.exempt(c, []string{"127.0.0.1", "localhost", imds})
		case slices.ContainsFunc(proxyVariables, c.has), c.object["envFrom"] != nil:
			m.exempt(c, []string{imds})
		}
		if c.list == "initContainers" && sidecar.list == "containers" {
			m.warnf("init container %q gets no tokens: the sidecar starts after it, until the cluster has native sidecars (Kubernetes 1.29)", c.name())
		}
	}
}

const imds = "169.254.169.254"

var (
	proxyVariables = []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"}
	// misleading variables send SDKs to protocols that are not served.
	misleading = []string{"IDENTITY_SERVER_THUMBPRINT", "IMDS_ENDPOINT"}
)

// warnOfNames tells of names that no container has.
func (m *mutation) warnOfNames(key string, names []string) {
	for _, name := range names {
		if _, found := m.pod.named(name); !found {
			m.warnf("annotation %s names %s, which is no container of the pod", key, quote(name))
		}
	}
}

// addEndpoint sets App Service's variables and their older names, all or none:
// with some of them somebody else's, our secret would go to their endpoint.
func (m *mutation) addEndpoint(c container, endpoint, header string) {
	pairs := [][2]string{{"IDENTITY_ENDPOINT", endpoint}, {"IDENTITY_HEADER", header}, {"MSI_ENDPOINT", endpoint}, {"MSI_SECRET", header}}
	for _, name := range misleading {
		if c.has(name) {
			m.warnf("container %q sets %s, which makes SDKs speak a protocol that svidecar does not serve", c.name(), name)
		}
	}
	for _, pair := range pairs {
		if c.has(pair[0]) && c.value(pair[0]) != pair[1] {
			m.warnf("container %q sets %s itself, so none of IDENTITY_ENDPOINT, IDENTITY_HEADER, MSI_ENDPOINT and MSI_SECRET is set: remove it there", c.name(), pair[0])
			return
		}
	}
	for _, pair := range pairs {
		m.addVariable(c, pair[0], pair[1])
	}
}

// addVariable sets a variable unless the container has it.
func (m *mutation) addVariable(c container, name, value string) {
	switch {
	case !c.has(name):
		m.pod.insert(c.object, object{"name": name, "value": value}, len(objects(c.object["env"])), c.path(), "env")
	case c.value(name) != value:
		m.warnf("container %q sets %s itself: it is left as it is", c.name(), name)
	}
}

// exempt keeps requests that carry the secret, and replies that carry a token,
// away from proxies. Programs read one of the two names or the other.
func (m *mutation) exempt(c container, hosts []string) {
	for i, name := range []string{"NO_PROXY", "no_proxy"} {
		other := []string{"no_proxy", "NO_PROXY"}[i]
		from := name
		if !c.has(name) && c.has(other) {
			from = other
		}
		entry, index := c.variable(from)
		if entry["valueFrom"] != nil {
			m.warnf("container %q takes %s from elsewhere: %s must be in it", c.name(), from, strings.Join(hosts, ", "))
			continue
		}
		if index < 0 && c.object["envFrom"] != nil {
			m.warnf("container %q takes variables from elsewhere (envFrom): if they name a proxy, %s must have %s in it", c.name(), name, strings.Join(hosts, ", "))
			return
		}
		value := c.value(from)
		m.setList(c, name, value, withHosts(value, hosts))
	}
}

// setList sets a variable whose value was extended.
func (m *mutation) setList(c container, name, before, after string) {
	entry, index := c.variable(name)
	switch {
	case index < 0:
		m.addVariable(c, name, after)
	case before != after:
		m.pod.note("add", fmt.Sprintf("%s/env/%d/value", c.path(), index), after)
		entry["value"] = after
	}
}

// withHosts adds the hosts that a list of NO_PROXY lacks. A star is all hosts.
func withHosts(list string, hosts []string) string {
	var have []string
	for part := range strings.SplitSeq(list, ",") {
		have = append(have, strings.TrimSpace(part))
	}
	if slices.Contains(have, "*") {
		return list
	}
	list = strings.TrimRight(list, ", ")
	for _, host := range hosts {
		if !slices.Contains(have, host) {
			list = strings.TrimPrefix(list+","+host, ",")
		}
	}
	return list
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func anyList[T any](list []T) []any {
	all := make([]any, len(list))
	for i, v := range list {
		all[i] = v
	}
	return all
}
