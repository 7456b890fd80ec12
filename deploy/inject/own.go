package inject

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// checkOwn holds what an earlier call has injected against what it must have
// been: the mark alone proves nothing, and without its redirection the pod would
// reach the node's identity.
func (m *mutation) checkOwn(sidecar container, mode Mode) error {
	fault := m.faultOf(sidecar, "serve")
	if fault == "" {
		fault = m.faultOfProof(sidecar, mode)
	}
	if fault == "" && mode != ModeEnv {
		fault = m.faultOfRedirection(sidecar, mode)
	}
	if fault == "" {
		return nil
	}
	return fmt.Errorf("annotation %s says %s, but %s: remove the annotation and the containers and volumes svidecar*, or keep what else changes pods from changing these", keyInjected, mode, fault)
}

// faultOfRedirection wants the init container whole, and to the sidecar's port.
func (m *mutation) faultOfRedirection(sidecar container, mode Mode) string {
	c, found := m.pod.named(RedirectName)
	if !found || c.list != "initContainers" {
		return fmt.Sprintf("the pod has no init container %q", RedirectName)
	}
	listens := sidecar.value(variable("listen"))
	host, text, _ := strings.Cut(listens, ":")
	port, err := strconv.Atoi(text)
	if err != nil || mode == ModeRedirect && host != "127.0.0.1" || mode == ModeAddress && listens != listen(wish{}, mode) {
		return fmt.Sprintf("container %q does not listen where that mode leads", SidecarName)
	}
	if c.object["restartPolicy"] != nil { // the next container would not wait for its end
		return fmt.Sprintf("init container %q has a restartPolicy", RedirectName)
	}
	return m.faultOf(c, redirectArgs(mode, port)...)
}

// faultOfProof wants what holds the app back until the sidecar serves, and the way
// to it is proven.
func (m *mutation) faultOfProof(sidecar container, mode Mode) string {
	probe, _ := sidecar.object["startupProbe"].(object)
	exec, _ := probe["exec"].(object)
	if !reflect.DeepEqual(exec["command"], startup(mode)) {
		return fmt.Sprintf("container %q has not the startupProbe that svidecar gave it", sidecar.name())
	}
	if m.cfg.NativeSidecars {
		return ""
	}
	lifecycle, _ := sidecar.object["lifecycle"].(object)
	start, _ := lifecycle["postStart"].(object)
	exec, _ = start["exec"].(object)
	if !reflect.DeepEqual(exec["command"], m.hold(wish{}, mode)) {
		return fmt.Sprintf("container %q has not the postStart that svidecar gave it", sidecar.name())
	}
	return ""
}

// faultOf wants one container of the name, with our program. Of the image only
// the last part of its name must stay: others may set registry, tag and digest.
func (m *mutation) faultOf(c container, args ...any) string {
	for _, other := range m.pod.containers() {
		if other.name() == c.name() && (other.list != c.list || other.index != c.index) {
			return fmt.Sprintf("the pod has two containers %q", c.name())
		}
	}
	image, _ := c.object["image"].(string)
	command, _ := c.object["command"].([]any)
	switch {
	case program(image) != program(m.cfg.Image):
		return fmt.Sprintf("container %q has the image %s, not one of %s", c.name(), quote(image), program(m.cfg.Image))
	case len(command) > 0:
		return fmt.Sprintf("container %q has a command", c.name())
	case !reflect.DeepEqual(c.object["args"], args):
		return fmt.Sprintf("container %q has not the args that svidecar gave it", c.name())
	}
	return ""
}

// program is the last part of an image's name, without tag and digest.
func program(image string) string {
	image, _, _ = strings.Cut(image, "@")
	image, _, _ = strings.Cut(image[strings.LastIndex(image, "/")+1:], ":")
	return image
}
