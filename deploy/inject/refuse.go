package inject

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

const keyEnforce = "pod-security.kubernetes.io/enforce"

// allowsPrivilege reports whether the namespace's Pod Security level lets a pod
// have NET_ADMIN or a host path. The API server takes a level that it does not
// know for the strictest.
func (m *mutation) allowsPrivilege() bool {
	level := m.in.NamespaceLabels[keyEnforce]
	return level == "" || level == "privileged"
}

// chooseMode decides what auto means here.
func (m *mutation) chooseMode(w wish) (Mode, error) {
	switch allowed := m.allowsPrivilege(); {
	case w.mode == ModeAuto && allowed:
		return ModeRedirect, nil
	case w.mode == ModeAuto:
		return ModeEnv, nil
	case w.mode != ModeEnv && !allowed:
		return "", fmt.Errorf("%s: %q needs NET_ADMIN, which %s forbids: it may be auto or env", w.modeFrom, w.mode, m.level())
	}
	return w.mode, nil
}

// warnOfBuiltIn tells what auto cannot give where the namespace allows no
// redirection.
func (m *mutation) warnOfBuiltIn(w wish, mode Mode) {
	if w.mode == ModeAuto && mode == ModeEnv && !m.allowsPrivilege() {
		m.warnf("mode env was chosen, since %s forbids NET_ADMIN: an app that has 169.254.169.254 built in does not reach the sidecar, and may reach the node's identity; set annotation %smode to env if it has not", m.level(), ours)
	}
}

func (m *mutation) level() string {
	return fmt.Sprintf("the Pod Security level %q of namespace %q", m.in.NamespaceLabels[keyEnforce], m.in.Namespace)
}

// keyMirror is what kubelet puts on the image that it shows of a static pod.
const keyMirror = "kubernetes.io/config.mirror"

// mostContainers bounds what one pod can make this package write: some kilobytes
// for each container.
const mostContainers = 256

// refuseForm names what leaves nothing to be done in this pod.
func (m *mutation) refuseForm() error {
	if _, mirror := m.pod.strings("metadata", "annotations")[keyMirror]; mirror {
		return fmt.Errorf("it is the mirror of a static pod (annotation %s), which runs as its file says: nothing can be added to it here; remove what asks for it from the file on the node", keyMirror)
	}
	if n := len(m.pod.containers()); n > mostContainers {
		return fmt.Errorf("the pod has %d containers: svidecar changes pods with at most %d", n, mostContainers)
	}
	return nil
}

// refuse names what makes a sidecar impossible in this pod.
func (m *mutation) refuse(w wish, mode Mode) error {
	if err := m.refuseForm(); err != nil {
		return err
	}
	if m.pod.get("spec", "hostNetwork") == true {
		return fmt.Errorf("the pod has hostNetwork: true, where a sidecar would answer for the whole node: remove it, or set annotation %s to \"false\" and let the app use workload identity itself", keyInject)
	}
	if m.isWindows() {
		return fmt.Errorf("the pod is for Windows, and the sidecar for Linux: set annotation %s to \"false\" and let the app use workload identity itself", keyInject)
	}
	if policy := m.pod.text("spec", "restartPolicy"); !m.cfg.NativeSidecars && (policy == "Never" || policy == "OnFailure") {
		return fmt.Errorf("the pod has restartPolicy: %s, and would never end: without native sidecars (Kubernetes 1.29) the sidecar outlives the app; set annotation %s to \"false\"", policy, keyInject)
	}
	if w.spiffe && m.cfg.SPIFFE.HostPath != "" && !m.allowsPrivilege() {
		return fmt.Errorf("annotation %ssource: \"spiffe\" needs a host path in this installation, which %s forbids: it may be file, or the installation uses the SPIFFE CSI driver", ours, m.level())
	}
	return m.refusePorts(w, mode)
}

func (m *mutation) isWindows() bool {
	if m.pod.text("spec", "os", "name") == "windows" || m.pod.get("spec", "securityContext", "windowsOptions") != nil {
		return true
	}
	selector := m.pod.strings("spec", "nodeSelector")
	return selector["kubernetes.io/os"] == "windows" || selector["beta.kubernetes.io/os"] == "windows"
}

// refusePorts names a container that declares a port of the sidecar's: they share
// one network namespace.
func (m *mutation) refusePorts(w wish, mode Mode) error {
	if mode == ModeAddress && w.portChosen && w.port != imdsPort {
		return fmt.Errorf("annotation %sport: \"%d\" is not allowed: in mode address it may be %d only, which apps ask", ours, w.port, imdsPort)
	}
	port, remedy := w.port, "set annotation "+ours+"port to a free one"
	if mode == ModeAddress {
		port, remedy = imdsPort, "set annotation "+ours+"mode to redirect or env"
	}
	if port == w.opsPort && w.portChosen {
		return fmt.Errorf("annotation %[1]sport: \"%[2]d\" is not allowed: health and metrics have it; it may be another, or set annotation %[1]sops-port", ours, port)
	}
	if port == w.opsPort {
		return fmt.Errorf("annotation %sops-port: \"%d\" is not allowed: it may be any port but that of the tokens", ours, w.opsPort)
	}
	for _, c := range m.pod.users() {
		switch {
		case c.declares(port):
			return fmt.Errorf("container %q has containerPort %d, which the sidecar takes for tokens: %s", c.name(), port, remedy)
		case c.declares(w.opsPort):
			return fmt.Errorf("container %q has containerPort %d, which the sidecar takes for health and metrics: set annotation %sops-port to a free one", c.name(), w.opsPort, ours)
		}
	}
	return nil
}

// declares reports whether the container says that it listens on a TCP port.
func (c container) declares(port int) bool {
	for _, p := range objects(c.object["ports"]) {
		protocol, _ := p["protocol"].(string)
		if n, ok := whole(p["containerPort"]); ok && n == int64(port) && (protocol == "" || strings.EqualFold(protocol, "TCP")) {
			return true
		}
	}
	return false
}

// whole is a JSON number as the API server reads it: 8000 and 8e3 are one.
func whole(v any) (int64, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	if i, err := n.Int64(); err == nil {
		return i, true
	}
	f, err := n.Float64()
	return int64(f), err == nil && f == float64(int64(f))
}

// chooseUser keeps the sidecar from running as the app does, which could then
// read its memory where processes are shared. Our default gives way.
func (m *mutation) chooseUser(w wish) (int64, error) {
	taken := m.users()
	user := w.runAsUser
	if who, clash := taken[user]; clash && w.userChosen {
		return 0, fmt.Errorf("annotation %srun-as-user: \"%d\" is not allowed: %s runs as that user, and could read the sidecar's memory; it may be any other from 1 to %d", ours, user, who, maxUID)
	}
	for taken[user] != "" || user < 1 {
		if user--; user < 1 {
			user = maxUID
		}
	}
	return user, nil
}

// refuseSharedUser names a container that came after the sidecar and runs as its
// user: the sidecar does not give way to it any more.
func (m *mutation) refuseSharedUser(sidecar container) error {
	sc, _ := sidecar.object["securityContext"].(object)
	user, ok := whole(sc["runAsUser"])
	if !ok {
		return fmt.Errorf("container %q has no runAsUser: keep what else changes pods from removing it", SidecarName)
	}
	if who := m.users()[user]; who != "" {
		return fmt.Errorf("%s runs as user %d, as the sidecar does, and could read its memory: set annotation %srun-as-user to another", who, user, ours)
	}
	return nil
}

// users tells who in the pod names which user.
func (m *mutation) users() map[int64]string {
	taken := map[int64]string{}
	if n, ok := whole(m.pod.get("spec", "securityContext", "runAsUser")); ok {
		taken[n] = "the pod"
	}
	for _, c := range m.pod.users() {
		sc, _ := c.object["securityContext"].(object)
		if n, ok := whole(sc["runAsUser"]); ok {
			taken[n] = "container " + strconv.Quote(c.name())
		}
	}
	return taken
}

// allowLowPort lets the sidecar listen on port 80 as an ordinary user. The sysctl
// is a safe one, and belongs to the pod's own network.
func (m *mutation) allowLowPort() error {
	const name = "net.ipv4.ip_unprivileged_port_start"
	at, ok := m.pod.get("spec", "securityContext").(object)
	if !ok {
		m.pod.set(object{"sysctls": []any{object{"name": name, "value": strconv.Itoa(imdsPort)}}}, "spec", "securityContext")
		return nil
	}
	if err := checkList(at, "sysctls", func() string { return "/spec/securityContext" }); err != nil {
		return err
	}
	for _, s := range objects(at["sysctls"]) {
		if s["name"] != name {
			continue
		}
		value, _ := s["value"].(string)
		if n, err := strconv.Atoi(value); err != nil || n > imdsPort {
			return fmt.Errorf("the pod sets sysctl %s to %s, and the mode address needs at most %d: change it, or set annotation %smode to redirect", name, quote(value), imdsPort, ours)
		}
		return nil
	}
	m.pod.insert(at, object{"name": name, "value": strconv.Itoa(imdsPort)}, len(objects(at["sysctls"])), "/spec/securityContext", "sysctls")
	return nil
}
