package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
)

// recipe is what a Dockerfile says of one image that is made from nothing.
type recipe struct {
	user                string
	entrypoint, command []string
	ports               []string
	labels              map[string]string
	copies              []copied
}

// copied is one file, taken from another stage.
type copied struct {
	stage, source, path string
}

// dockerfile is a Dockerfile's instructions by stage, with the variables that hold in them.
type dockerfile struct {
	stages    map[string]stage
	variables map[string]string
}

type stage struct {
	from         string
	instructions []instruction
}

type instruction struct {
	line       int
	word, rest string
}

// readRecipe reads the stage called target, and those that it is made from. It knows the few instructions that an image
// of static files needs, and refuses any other: an image that only Docker builds as meant is worse than an error.
// Variables replace the defaults of ARG.
func readRecipe(text, target string, variables map[string]string) (recipe, error) {
	d, err := parse(text, variables)
	if err != nil {
		return recipe{}, err
	}
	r := recipe{labels: map[string]string{}}
	if err := d.follow(target, &r, 0); err != nil {
		return recipe{}, err
	}
	if len(r.entrypoint) == 0 {
		return recipe{}, fmt.Errorf("stage %s of the Dockerfile has no ENTRYPOINT", target)
	}
	return r, nil
}

func parse(text string, variables map[string]string) (*dockerfile, error) {
	d := &dockerfile{stages: map[string]stage{}, variables: variables}
	current := ""
	for _, i := range instructions(text) {
		switch {
		case i.word == "FROM":
			words := strings.Fields(i.rest)
			if strings.HasPrefix(i.rest, "--") {
				words = words[1:]
			}
			if len(words) != 3 || !strings.EqualFold(words[1], "AS") {
				return nil, i.errorf("want FROM image AS name")
			}
			current = words[2]
			if _, twice := d.stages[current]; twice {
				return nil, i.errorf("there are two stages %s", current)
			}
			d.stages[current] = stage{from: words[0]}
		case current != "":
			s := d.stages[current]
			s.instructions = append(s.instructions, i)
			d.stages[current] = s
		case i.word != "ARG":
			return nil, i.errorf("it stands before the first FROM")
		}
	}
	return d, nil
}

// instructions joins continued lines, and leaves out comments.
func instructions(text string) (all []instruction) {
	joined, begin := "", 0
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if joined == "" {
			begin = n + 1
		}
		if more, ok := strings.CutSuffix(line, "\\"); ok {
			joined += strings.TrimSpace(more) + " "
			continue
		}
		word, rest, _ := strings.Cut(joined+line, " ")
		all = append(all, instruction{begin, strings.ToUpper(word), strings.TrimSpace(rest)})
		joined = ""
	}
	return all
}

func (i instruction) errorf(format string, args ...any) error {
	return fmt.Errorf("line %d of the Dockerfile: %s: %s", i.line, i.word, fmt.Sprintf(format, args...))
}

// follow carries out the stage that name is made from, and then name itself.
func (d *dockerfile) follow(name string, r *recipe, depth int) error {
	s, ok := d.stages[name]
	switch {
	case !ok:
		return fmt.Errorf("no stage %s in the Dockerfile", name)
	case depth > len(d.stages):
		return fmt.Errorf("stage %s of the Dockerfile is made from itself", name)
	case s.from != "scratch":
		if err := d.follow(s.from, r, depth+1); err != nil {
			return err
		}
	}
	local := map[string]string{} // an ARG holds in its own stage only
	for _, i := range s.instructions {
		if err := d.carryOut(i, local, r); err != nil {
			return i.errorf("%v", err)
		}
	}
	return nil
}

func (d *dockerfile) carryOut(i instruction, local map[string]string, r *recipe) (err error) {
	rest, err := expand(i.rest, local)
	if err != nil {
		return err
	}
	switch i.word {
	case "ARG":
		for _, a := range strings.Fields(rest) {
			name, value, _ := strings.Cut(a, "=")
			if given, ok := d.variables[name]; ok {
				value = given
			}
			local[name] = value
		}
	case "USER":
		r.user = rest
	case "EXPOSE":
		r.ports = append(r.ports, rest+"/tcp")
	case "ENTRYPOINT":
		r.entrypoint, err = words(rest)
	case "CMD":
		r.command, err = words(rest)
	case "LABEL":
		err = labels(rest, r.labels)
	case "COPY":
		err = r.copy(rest)
	default:
		err = errors.New("an image of static files does not need it")
	}
	return err
}

// expand puts in variables, which stand as $NAME.
func expand(s string, variables map[string]string) (string, error) {
	before, after, found := strings.Cut(s, "$")
	if !found {
		return s, nil
	}
	end := strings.IndexFunc(after, func(c rune) bool { return c != '_' && (c < 'A' || c > 'Z') })
	if end < 0 {
		end = len(after)
	}
	value, ok := variables[after[:end]]
	if !ok {
		return "", fmt.Errorf("no ARG %s in this stage", after[:end])
	}
	rest, err := expand(after[end:], variables)
	return before + value + rest, err
}

// words reads the JSON form of a command: the other form needs a shell.
func words(s string) (list []string, err error) {
	if err := json.Unmarshal([]byte(s), &list); err != nil || len(list) == 0 {
		return nil, fmt.Errorf("%s is not a JSON list of words", s)
	}
	return list, nil
}

// labels reads name="value" pairs.
func labels(s string, to map[string]string) error {
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		name, rest, ok := strings.Cut(s, `="`)
		value, rest, closed := strings.Cut(rest, `"`)
		if !ok || !closed || strings.ContainsAny(name, ` "`) {
			return fmt.Errorf(`%s is not name="value"`, s)
		}
		to[name] = value
		s = rest
	}
	return nil
}

func (r *recipe) copy(rest string) error {
	f := strings.Fields(rest)
	from, ok := "", len(f) == 3
	if ok {
		from, ok = strings.CutPrefix(f[0], "--from=")
	}
	if !ok {
		return errors.New("want COPY --from=stage source destination")
	}
	to := f[2]
	if strings.HasSuffix(to, "/") {
		to += path.Base(f[1])
	}
	r.copies = append(r.copies, copied{stage: from, source: f[1], path: to})
	return nil
}
