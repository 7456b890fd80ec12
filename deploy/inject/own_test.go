package inject_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/svidecar/svidecar/deploy/inject"
)

// between is what another webhook may do to the pod between two calls.
type between func(spec object)

// meddled injects in the mode, lets somebody change the pod, and gives it back.
func meddled(t *testing.T, cfg inject.Config, mode inject.Mode, change between) []byte {
	t.Helper()
	in := inject.Input{Pod: podWith(t, on("svidecar.io/mode", string(mode)), nil)}
	var pod object
	if err := json.Unmarshal(patched(t, in.Pod, mustMutate(t, cfg, in).Patch), &pod); err != nil {
		t.Fatal(err)
	}
	change(pod["spec"].(object))
	raw, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// onContainer changes the container of that name.
func onContainer(name, key string, value any) between {
	return func(spec object) {
		for _, list := range []string{"initContainers", "containers"} {
			entries, _ := spec[list].([]any)
			for _, e := range entries {
				if c := e.(object); c["name"] == name {
					c[key] = value
				}
			}
		}
	}
}

func without(name string) between {
	return func(spec object) {
		spec["initContainers"] = slices.DeleteFunc(spec["initContainers"].([]any), func(e any) bool { return e.(object)["name"] == name })
	}
}

func appended(list string, entry object) between {
	return func(spec object) {
		old, _ := spec[list].([]any)
		spec[list] = append(old, entry)
	}
}

// TestMarkProvesNothing: a pod that says that it has been done is refused unless
// what was added is there, since apps would reach the node's identity.
func TestMarkProvesNothing(t *testing.T) {
	const sidecar, redirect = "svidecar", "svidecar-redirect"
	moved := func(spec object) {
		without(redirect)(spec)
		appended("containers", object{"name": redirect})(spec)
	}
	for _, tt := range []struct {
		name   string
		mode   inject.Mode
		change between
		want   string // empty: not refused
	}{
		{"untouched", inject.ModeRedirect, func(object) {}, ""},
		{"redirection gone", inject.ModeRedirect, without(redirect), `annotation svidecar.io/injected says redirect, but the pod has no init container "svidecar-redirect": remove`},
		{"redirection gone in mode address", inject.ModeAddress, without(redirect), `says address, but the pod has no init container`},
		{"redirection in another list", inject.ModeRedirect, moved, `no init container "svidecar-redirect"`},
		{"redirection to another port", inject.ModeRedirect, onContainer(redirect, "args", []any{"redirect", "--method=nftables", "--to-port=1"}), `container "svidecar-redirect" has not the args`},
		{"redirection that prints", inject.ModeRedirect, onContainer(redirect, "args", []any{"redirect", "--method=nftables", "--to-port=8000", "--dry-run"}), `has not the args`},
		{"redirection without args", inject.ModeAddress, onContainer(redirect, "args", nil), `has not the args`},
		{"redirection by another program", inject.ModeRedirect, onContainer(redirect, "image", "busybox"), `container "svidecar-redirect" has the image "busybox", not one of svidecar`},
		{"redirection by a command", inject.ModeRedirect, onContainer(redirect, "command", []any{"/true"}), `container "svidecar-redirect" has a command`},
		{"redirection that nobody waits for", inject.ModeRedirect, onContainer(redirect, "restartPolicy", "Always"), `has a restartPolicy`},
		{"two redirections", inject.ModeRedirect, appended("initContainers", object{"name": redirect}), `the pod has two containers "svidecar-redirect"`},
		{"sidecar without a startup probe", inject.ModeRedirect, onContainer(sidecar, "startupProbe", nil), `container "svidecar" has not the startupProbe`},
		{"sidecar whose startup probe proves less", inject.ModeRedirect, onContainer(sidecar, "startupProbe", object{"exec": object{"command": []any{"/svidecar", "wait", "--timeout=1s"}}}), `has not the startupProbe`},
		{"sidecar of another program", inject.ModeRedirect, onContainer(sidecar, "image", "registry.example.com/svidecar/other:v1"), `container "svidecar" has the image`},
		{"sidecar with other args", inject.ModeEnv, onContainer(sidecar, "args", []any{"version"}), `container "svidecar" has not the args`},
		{"sidecar that listens elsewhere", inject.ModeRedirect, onContainer(sidecar, "env", []any{object{"name": "SVIDECAR_LISTEN", "value": "127.0.0.1:1"}}), `container "svidecar-redirect" has not the args`},
		{"sidecar that listens nowhere", inject.ModeAddress, onContainer(sidecar, "env", nil), `does not listen where that mode leads`},
		{"two sidecars", inject.ModeRedirect, appended("containers", object{"name": sidecar}), `the pod has two containers "svidecar"`},
		{"another registry", inject.ModeRedirect, func(spec object) {
			onContainer(sidecar, "image", "mirror:5000/x/svidecar@sha256:0")(spec)
			onContainer(redirect, "image", "svidecar:v2@sha256:0")(spec)
		}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res, err := config().Mutate(inject.Input{Pod: meddled(t, config(), tt.mode, tt.change)})
			switch {
			case tt.want != "":
				wantRefusal(t, err, tt.want)
			case err != nil || res.Patch != nil:
				t.Errorf("Mutate: %s, %v; want neither", res.Patch, err)
			}
		})
	}
}

// TestMarkWithoutNativeSidecars: there the hook after the start holds the app back, and must prove what the probe does.
func TestMarkWithoutNativeSidecars(t *testing.T) {
	classic := config()
	classic.NativeSidecars = false
	hook := func(command ...any) between {
		return onContainer("svidecar", "lifecycle", object{"postStart": object{"exec": object{"command": command}}})
	}
	for _, tt := range []struct {
		name   string
		mode   inject.Mode
		change between
		ok     bool
	}{
		{"untouched", inject.ModeRedirect, func(object) {}, true},
		{"untouched, env", inject.ModeEnv, func(object) {}, true},
		{"no hook", inject.ModeRedirect, onContainer("svidecar", "lifecycle", nil), false},
		{"a hook that proves less", inject.ModeRedirect, hook("/svidecar", "wait", "--timeout=60s"), false},
		{"a hook that proves nothing", inject.ModeEnv, hook("/svidecar", "version"), false},
	} {
		_, err := classic.Mutate(inject.Input{Pod: meddled(t, classic, tt.mode, tt.change)})
		if tt.ok && err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if !tt.ok {
			wantRefusal(t, err, `container "svidecar" has not the postStart that svidecar gave it`)
		}
	}
}

// TestMarkOfAnotherMode: a template that was copied from a pod of another mode has
// that pod's containers, and would leave the app where it must not be.
func TestMarkOfAnotherMode(t *testing.T) {
	for _, tt := range []struct {
		name   string
		marked inject.Mode
		wanted string // annotation; empty: none
		labels map[string]string
		ok     bool
	}{
		{"the same", inject.ModeEnv, "env", nil, true},
		{"auto, as then", inject.ModeRedirect, "auto", nil, true},
		{"auto, where nothing else is allowed", inject.ModeEnv, "", map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}, true},
		{"auto, where redirection is allowed", inject.ModeEnv, "", nil, false},
		{"another by annotation", inject.ModeEnv, "redirect", nil, false},
		{"redirection by address", inject.ModeAddress, "redirect", nil, false},
	} {
		raw := meddled(t, config(), tt.marked, func(object) {})
		var pod object
		if err := json.Unmarshal(raw, &pod); err != nil {
			t.Fatal(err)
		}
		annotations := pod["metadata"].(object)["annotations"].(object)
		annotations["svidecar.io/mode"] = tt.wanted
		if tt.wanted == "" {
			delete(annotations, "svidecar.io/mode")
		}
		raw, err := json.Marshal(pod)
		if err != nil {
			t.Fatal(err)
		}
		_, err = config().Mutate(inject.Input{Pod: raw, NamespaceLabels: tt.labels})
		if tt.ok && err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if !tt.ok {
			wantRefusal(t, err, "annotation svidecar.io/injected says "+string(tt.marked)+", and the mode here is redirect")
		}
	}
}

// TestLateUser: what comes after the sidecar must not run as its user either.
func TestLateUser(t *testing.T) {
	late := func(user int) object {
		return object{"name": "late", "image": "late", "securityContext": object{"runAsUser": user}}
	}
	for _, tt := range []struct {
		name   string
		change between
		want   string // empty: not refused
	}{
		{"another user", appended("containers", late(65530)), ""},
		{"container", appended("containers", late(65531)), `container "late" runs as user 65531, as the sidecar does, and could read its memory: set annotation svidecar.io/run-as-user`},
		{"init container", appended("initContainers", late(65531)), `container "late" runs as user 65531`},
		{"pod", between(at(65531, "securityContext", "runAsUser")), `the pod runs as user 65531`},
		{"sidecar without a user", onContainer("svidecar", "securityContext", object{}), `container "svidecar" has no runAsUser`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := config().Mutate(inject.Input{Pod: meddled(t, config(), inject.ModeEnv, tt.change)})
			if tt.want != "" {
				wantRefusal(t, err, tt.want)
			} else if err != nil {
				t.Errorf("Mutate: %v; want no error", err)
			}
		})
	}
}
