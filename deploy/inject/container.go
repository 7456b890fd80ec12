package inject

import (
	"fmt"
	"strconv"
)

// container is one container of the pod's tree.
type container struct {
	object
	list  string // initContainers or containers
	index int
}

func (c container) name() string {
	s, _ := c.object["name"].(string)
	return s
}

// path is where the container stands until the list changes.
func (c container) path() string { return pointer("spec", c.list, strconv.Itoa(c.index)) }

// containers gives the init containers, then the others.
func (p *pod) containers() []container {
	var all []container
	for _, list := range []string{"initContainers", "containers"} {
		for i, entry := range p.entries(list) {
			all = append(all, container{entry, list, i})
		}
	}
	return all
}

// named finds a container, an ephemeral one too.
func (p *pod) named(name string) (container, bool) {
	all := p.containers()
	for i, entry := range p.entries("ephemeralContainers") {
		all = append(all, container{entry, "ephemeralContainers", i})
	}
	for _, c := range all {
		if c.name() == name {
			return c, true
		}
	}
	return container{}, false
}

// users gives the containers that are not ours.
func (p *pod) users() []container {
	var all []container
	for _, c := range p.containers() {
		if c.name() != SidecarName && c.name() != RedirectName {
			all = append(all, c)
		}
	}
	return all
}

// entries gives a list of the pod's spec.
func (p *pod) entries(list string) []object {
	spec, _ := p.get("spec").(object)
	return objects(spec[list])
}

// objects gives the objects of a list.
func objects(list any) []object {
	var all []object
	entries, _ := list.([]any)
	for _, e := range entries {
		if o, ok := e.(object); ok {
			all = append(all, o)
		}
	}
	return all
}

// variable finds an environment variable. The last one of a name counts, as for
// the container runtime.
func (c container) variable(name string) (entry object, index int) {
	index = -1
	for i, e := range objects(c.object["env"]) {
		if e["name"] == name {
			entry, index = e, i
		}
	}
	return entry, index
}

// value is what an environment variable is set to in the pod itself.
func (c container) value(name string) string {
	entry, _ := c.variable(name)
	s, _ := entry["value"].(string)
	return s
}

// has reports whether somebody has set the variable.
func (c container) has(name string) bool {
	_, index := c.variable(name)
	return index >= 0
}

// check holds what the rest of the package reads: what is there has its type.
func (p *pod) check() error {
	if _, ok := p.get("spec").(object); !ok {
		return fmt.Errorf("%w: it has no spec", errShape)
	}
	for _, path := range [][]string{{"metadata"}, {"metadata", "annotations"}, {"metadata", "labels"}, {"spec", "securityContext"}, {"spec", "nodeSelector"}, {"spec", "os"}} {
		if v := p.get(path...); v != nil {
			if _, ok := v.(object); !ok {
				return fmt.Errorf("%w: %s is no object", errShape, pointer(path...))
			}
		}
	}
	spec := p.get("spec").(object)
	for _, list := range []string{"initContainers", "containers", "ephemeralContainers", "volumes"} {
		if err := checkList(spec, list, func() string { return "/spec" }); err != nil {
			return err
		}
	}
	for _, c := range p.containers() {
		for _, list := range []string{"env", "envFrom", "ports", "volumeMounts"} {
			if err := checkList(c.object, list, c.path); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkList wants a list of objects, or nothing. The path is for the error alone.
func checkList(in object, key string, path func() string) error {
	if in[key] == nil {
		return nil
	}
	list, ok := in[key].([]any)
	if !ok || len(objects(list)) != len(list) {
		return fmt.Errorf("%w: %s is no list of objects", errShape, path()+pointer(key))
	}
	return nil
}
