package arch_test

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

// stage is one FROM of a Dockerfile with the instructions that decide what runs.
type stage struct {
	name, from       string
	user, entrypoint string
}

var numericUser = regexp.MustCompile(`^[1-9][0-9]*(:[1-9][0-9]*)?$`)

// checkDockerfile wants an image for each binary, made from nothing, run by a
// numbered user other than root, and the sidecar's image as the default.
func checkDockerfile(tr *tree) (bad []string) {
	stages := parseDockerfile(string(tr.all["Dockerfile"]))
	if len(stages) == 0 {
		return []string{"Dockerfile: no stage found"}
	}
	if last := stages[len(stages)-1]; last.name != "svidecar" {
		bad = append(bad, fmt.Sprintf("Dockerfile: the last stage is %q, want svidecar", last.name))
	}
	for _, p := range tr.packages() {
		if dir := path.Dir(p.dir); dir != "cmd" && dir != "examples" {
			continue
		}
		if fault := checkImage(stages, path.Base(p.dir)); fault != "" {
			bad = append(bad, fmt.Sprintf("Dockerfile: %s: %s", path.Base(p.dir), fault))
		}
	}
	return bad
}

// buildFolders finds the folders that go build is given in the Dockerfile.
var buildFolders = regexp.MustCompile(`\./([a-z]+)/\.\.\.`)

// checkContext wants .dockerignore to let through the folder of each package that
// the Dockerfile builds, and of all that those import.
func checkContext(tr *tree) (bad []string) {
	let := strings.Fields(string(tr.all[".dockerignore"]))
	needed := map[string]bool{}
	for _, m := range buildFolders.FindAllStringSubmatch(string(tr.all["Dockerfile"]), -1) {
		needed[m[1]] = true
	}
	for _, p := range tr.packages() {
		if !needed[strings.Split(p.dir, "/")[0]] {
			continue
		}
		for _, f := range p.files {
			for to := range f.imports() {
				if ours, ok := strings.CutPrefix(to, module+"/"); ok && !f.test {
					needed[strings.Split(ours, "/")[0]] = true
				}
			}
		}
	}
	for _, folder := range slices.Sorted(maps.Keys(needed)) {
		if !slices.Contains(let, "!"+folder) {
			bad = append(bad, fmt.Sprintf(".dockerignore: the Dockerfile builds from %s, which is kept out", folder))
		}
	}
	return bad
}

func checkImage(stages []stage, binary string) (fault string) {
	s, ok := resolve(stages, binary)
	switch {
	case !ok:
		return "no stage of that name"
	case s.from != "scratch":
		return fmt.Sprintf("made from %q, want scratch", s.from)
	case !numericUser.MatchString(s.user):
		return fmt.Sprintf("runs as %q, want a number other than 0", s.user)
	case s.entrypoint != `["/`+binary+`"]`:
		return fmt.Sprintf(`starts %s, want ["/%s"]`, s.entrypoint, binary)
	}
	return ""
}

// parseDockerfile reads stages in order. It knows no line continuation: none of
// the instructions it looks for needs one.
func parseDockerfile(text string) (stages []stage) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		rest := strings.Join(words[1:], " ")
		if words[0] == "FROM" {
			stages = append(stages, parseFrom(words[1:]))
			continue
		}
		if len(stages) == 0 {
			continue
		}
		switch last := &stages[len(stages)-1]; words[0] {
		case "USER":
			last.user = rest
		case "ENTRYPOINT":
			last.entrypoint = rest
		}
	}
	return stages
}

func parseFrom(words []string) (s stage) {
	words = slices.DeleteFunc(words, func(w string) bool { return strings.HasPrefix(w, "--") })
	if len(words) > 0 {
		s.from = words[0]
	}
	if len(words) == 3 && strings.EqualFold(words[1], "AS") {
		s.name = words[2]
	}
	return s
}

// resolve gives the stage called name with what it inherits from the stages it
// is built on.
func resolve(stages []stage, name string) (stage, bool) {
	i := slices.IndexFunc(stages, func(s stage) bool { return s.name == name })
	if i < 0 {
		return stage{}, false
	}
	s := stages[i]
	if base, ok := resolve(stages[:i], s.from); ok {
		s.from = base.from
		s.user = cmp.Or(s.user, base.user)
		s.entrypoint = cmp.Or(s.entrypoint, base.entrypoint)
	}
	return s, true
}
