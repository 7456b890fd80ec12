package inject

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/svidecar/svidecar/internal/config"
)

// mutation is the work on one pod.
type mutation struct {
	cfg      Config // complete
	in       Input
	pod      *pod
	mode     Mode // set once the pod has our sidecar
	warnings []string
}

func (m *mutation) warnf(format string, args ...any) {
	m.warnings = append(m.warnings, fmt.Sprintf("svidecar: "+format, args...))
}

// run does everything that the pod asks for.
func (m *mutation) run() error {
	inject, err := m.wantsSidecar()
	if err != nil {
		return err
	}
	use := m.usesFederation()
	if !inject {
		if err := m.refuseIdle(); err != nil || !use {
			return err
		}
	}
	w, err := m.readWish(inject)
	if err != nil {
		return err
	}
	if inject {
		if err := m.addSidecar(w); err != nil {
			return err
		}
	}
	if use {
		return m.addFederation(w)
	}
	return nil
}

// wantsSidecar asks our annotation, then azure-workload-identity's, then whether
// identities are bound to the pod.
func (m *mutation) wantsSidecar() (bool, error) {
	given := m.pod.strings("metadata", "annotations")
	for _, key := range []string{keyInject, keyTheirInject} {
		value, found := given[key]
		if !found {
			continue
		}
		yes, err := readBool(value)
		if err != nil {
			return false, fmt.Errorf("annotation %s: %s is not allowed: it may be %s", key, quote(value), wantsBool)
		}
		return yes, nil
	}
	return len(m.in.Identities) > 0, nil
}

// refuseIdle looks at annotations of ours where nothing asks for the sidecar. A
// mistyped one may have been meant to ask for it. The mark without the containers
// is a lie that people would read.
func (m *mutation) refuseIdle() error {
	given := m.pod.strings("metadata", "annotations")
	if mark, marked := given[keyInjected]; marked {
		if _, injected, err := m.ownSidecar(); err != nil {
			return err
		} else if !injected {
			return fmt.Errorf("annotation %s: %s, but nothing asks for the sidecar, and the pod has none: remove it", keyInjected, quote(mark))
		}
	}
	if _, decided := given[keyInject]; decided {
		return nil
	}
	for _, key := range sortedKeys(m.pod.strings("metadata", "labels")) {
		if strings.HasPrefix(key, ours) {
			return fmt.Errorf("label %s does nothing: what svidecar obeys are annotations; make it one", key)
		}
	}
	var w wish
	bad, found := m.read(&w, ours)
	if found && len(bad) == 0 {
		m.warnf(`annotations %s* do nothing without %s: "true"`, ours, keyInject)
	}
	return oneLine(bad)
}

// addSidecar injects the sidecar unless the pod has it, and tells the app of it.
func (m *mutation) addSidecar(w wish) error {
	sidecar, injected, err := m.ownSidecar()
	if err != nil {
		return err
	}
	mode, err := m.chooseMode(w)
	if err != nil {
		return err
	}
	if mark := Mode(m.pod.text("metadata", "annotations", keyInjected)); injected && mark != mode {
		return fmt.Errorf("annotation %s says %s, and the mode here is %s: remove the annotation and the containers and volumes svidecar*, and they are made anew", keyInjected, mark, mode)
	}
	if err := m.refuse(w, mode); err != nil {
		return err
	}
	if injected {
		err = m.refuseSharedUser(sidecar)
	} else {
		sidecar, err = m.inject(w, mode)
	}
	if err != nil {
		return err
	}
	m.warnOfBuiltIn(w, mode)
	m.keepOrder(mode)
	m.mode = mode
	m.tellContainers(w, sidecar)
	return nil
}

// ownSidecar finds what an earlier call has injected. Any other container or
// volume of our names is somebody else's.
func (m *mutation) ownSidecar() (sidecar container, injected bool, err error) {
	sidecar, found := m.pod.named(SidecarName)
	mark, marked := m.pod.strings("metadata", "annotations")[keyInjected]
	if found && marked && sidecar.list != "ephemeralContainers" {
		if !slices.Contains(modes[1:], Mode(mark)) {
			return sidecar, false, fmt.Errorf("annotation %s: %s is not allowed: svidecar writes it; remove it", keyInjected, quote(mark))
		}
		return sidecar, true, m.checkOwn(sidecar, Mode(mark))
	}
	for _, name := range []string{SidecarName, RedirectName, "azwi-proxy", "azwi-proxy-init"} {
		if _, taken := m.pod.named(name); taken {
			return sidecar, false, fmt.Errorf("the pod has a container %q that svidecar did not inject: rename or remove it, or set annotation %s to \"false\"", name, keyInject)
		}
	}
	for _, v := range m.pod.entries("volumes") {
		if name := v["name"]; name == tokenVolume || name == socketVolume || name == caVolume || name == emptyVolume {
			return sidecar, false, fmt.Errorf("the pod has a volume %q that svidecar did not add: rename it", name)
		}
	}
	return sidecar, false, nil
}

// inject adds the containers and volumes.
func (m *mutation) inject(w wish, mode Mode) (container, error) {
	var err error
	if w.runAsUser, err = m.chooseUser(w); err != nil {
		return container{}, err
	}
	env, err := m.sidecarEnv(w, mode)
	if err != nil {
		return container{}, err
	}
	cfg, err := m.loadSettings(env)
	if err != nil {
		return container{}, err
	}
	if mode == ModeAddress {
		if err := m.allowLowPort(); err != nil {
			return container{}, err
		}
	}
	m.warnOfNoDefault(w, env)
	spec := m.pod.get("spec").(object)
	list := "initContainers"
	if !m.cfg.NativeSidecars {
		list = "containers"
		m.keepDefaultContainer()
	}
	m.pod.insert(spec, m.sidecar(w, mode, env), 0, "/spec", list)
	if mode != ModeEnv {
		m.pod.insert(spec, m.redirection(w, mode), 0, "/spec", "initContainers")
	}
	for _, v := range m.volumes(w, cfg) {
		m.pod.insert(spec, v, len(m.pod.entries("volumes")), "/spec", "volumes")
	}
	m.pod.set(string(mode), "metadata", "annotations", keyInjected)
	sidecar, _ := m.pod.named(SidecarName)
	return sidecar, nil
}

// loadSettings asks the sidecar's own parser whether it would start so. Only the
// certificates' file is left out, which is not here.
func (m *mutation) loadSettings(env []object) (*config.Config, error) {
	var environ []string
	for _, e := range env {
		if e["name"] != variable("authority-ca-file") {
			environ = append(environ, e["name"].(string)+"="+unescape(e["value"].(string)))
		}
	}
	cfg, err := config.Load(nil, environ)
	if err == nil {
		return cfg, nil
	}
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	for _, a := range annotations {
		if a.setting != "" {
			text = strings.ReplaceAll(text, "env "+variable(a.setting)+")", "annotation "+a.Name+")")
		}
	}
	listed := "annotation " + ours + "identities"
	if len(m.in.Identities) > 0 && m.pod.text("metadata", "annotations", ours+"identities") == "" {
		listed = "the identities bound by aadpodidbinding"
	}
	text = strings.ReplaceAll(text, "env "+variable("identities"), listed)
	return nil, errors.New("the sidecar would not start: " + text)
}

// warnOfNoDefault tells that an app which names no identity gets no token.
func (m *mutation) warnOfNoDefault(w wish, env []object) {
	names := []string{variable("client-id"), "AZURE_CLIENT_ID"}
	for _, e := range env {
		if slices.Contains(names, e["name"].(string)) && e["value"] != "" {
			return
		}
	}
	if slices.ContainsFunc(w.identities, func(id Identity) bool { return id.Default }) {
		return
	}
	account := cmp.Or(m.pod.text("spec", "serviceAccountName"), "default")
	m.warnf("requests that name no identity will be refused: say which is the default by annotation %s of service account %s/%s, and create the pod anew", keyClientID, m.in.Namespace, account)
}

// keepOrder puts our containers first in their lists, where another webhook came
// between: what runs before the redirection reaches the node's identity, and what
// starts before the sidecar is not held back by it.
func (m *mutation) keepOrder(mode Mode) {
	spec := m.pod.get("spec").(object)
	want := []string{RedirectName, SidecarName}
	if mode == ModeEnv {
		want = want[1:]
	}
	place := map[string]int{}
	for _, name := range want {
		c, found := m.pod.named(name)
		if !found {
			continue
		}
		if c.index != place[c.list] {
			m.pod.move(spec, c.index, place[c.list], "/spec", c.list)
		}
		place[c.list]++
	}
}

// keepDefaultContainer keeps kubectl's logs and exec at the app, where we come
// first among its containers.
func (m *mutation) keepDefaultContainer() {
	const key = "kubectl.kubernetes.io/default-container"
	users := m.pod.entries("containers")
	if _, given := m.pod.strings("metadata", "annotations")[key]; given || len(users) == 0 {
		return
	}
	m.pod.set(container{object: users[0]}.name(), "metadata", "annotations", key)
}
