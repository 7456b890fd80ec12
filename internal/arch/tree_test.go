package arch_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

// module is the prefix of our own import paths.
const module = "github.com/svidecar/svidecar"

// root is the top of the tree, seen from this folder.
const root = "../.."

// tree is all of the project's files. Go files are parsed whatever their build
// constraints, so that a rule holds for every system and every tag at once.
type tree struct {
	fset *token.FileSet
	gos  []*goFile         // in the order of their paths
	all  map[string][]byte // every file by its path, the Go files included
}

// goFile is one parsed Go file.
type goFile struct {
	path string // from the root, with slashes
	dir  string // "." for the root
	test bool   // its name ends in _test.go
	ast  *ast.File
}

// pkg is the Go files of one folder.
type pkg struct {
	dir   string
	files []*goFile
}

// load reads a tree. It leaves out what is not source: version control and
// build output.
func load(fsys fs.FS) (*tree, error) {
	tr := &tree{fset: token.NewFileSet(), all: map[string][]byte{}}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name == ".git" && !d.IsDir(): // of a linked work tree
			return nil
		case d.IsDir() && (name == ".git" || name == "bin"):
			return fs.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		return tr.add(fsys, name)
	})
	return tr, err
}

// add reads one file into tr.
func (tr *tree) add(fsys fs.FS, name string) error {
	src, err := fs.ReadFile(fsys, name)
	if err != nil {
		return err
	}
	tr.all[name] = src
	if !strings.HasSuffix(name, ".go") || ignored(name) {
		return nil
	}
	f, err := parser.ParseFile(tr.fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	tr.gos = append(tr.gos, &goFile{
		path: name,
		dir:  path.Dir(name),
		test: strings.HasSuffix(name, "_test.go"),
		ast:  f,
	})
	return nil
}

// ignored reports whether the go command passes over name because of a folder
// on its way.
func ignored(name string) bool {
	return slices.ContainsFunc(strings.Split(path.Dir(name), "/"), func(e string) bool {
		return e == "testdata" || len(e) > 1 && (e[0] == '.' || e[0] == '_')
	})
}

// packages groups the Go files by folder.
func (tr *tree) packages() []pkg {
	var pkgs []pkg
	for _, f := range tr.gos {
		if i := slices.IndexFunc(pkgs, func(p pkg) bool { return p.dir == f.dir }); i >= 0 {
			pkgs[i].files = append(pkgs[i].files, f)
			continue
		}
		pkgs = append(pkgs, pkg{f.dir, []*goFile{f}})
	}
	return pkgs
}

// at says where a node stands, then what is wrong with it.
func (tr *tree) at(n ast.Node, format string, args ...any) string {
	pos := tr.fset.Position(n.Pos())
	return fmt.Sprintf("%s:%d: %s", pos.Filename, pos.Line, fmt.Sprintf(format, args...))
}

// imports gives the import paths of f.
func (f *goFile) imports() map[string]*ast.ImportSpec {
	m := map[string]*ast.ImportSpec{}
	for _, s := range f.ast.Imports {
		p, err := strconv.Unquote(s.Path.Value)
		if err != nil {
			panic("arch: internal error: parsed import " + s.Path.Value)
		}
		m[p] = s
	}
	return m
}

// uses reports whether n is written pkg.name, for the package imported from
// importPath under its own or another name.
func (f *goFile) uses(n ast.Node, importPath string, names ...string) bool {
	sel, ok := n.(*ast.SelectorExpr)
	if !ok || !slices.Contains(names, sel.Sel.Name) {
		return false
	}
	spec := f.imports()[importPath]
	if spec == nil {
		return false
	}
	local := path.Base(importPath)
	if spec.Name != nil {
		local = spec.Name.Name
	}
	x, ok := sel.X.(*ast.Ident)
	return ok && x.Name == local
}

// realTree reads the project. It fails the test if it sees next to nothing,
// because every rule holds for an empty tree.
func realTree(t *testing.T) *tree {
	t.Helper()
	tr, err := load(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	if len(tr.gos) < 5 || tr.all["go.mod"] == nil {
		t.Fatalf("%d Go files under %s: this is not the project", len(tr.gos), root)
	}
	return tr
}

// inventedTree makes a tree of files given as path and text.
func inventedTree(t *testing.T, files map[string]string) *tree {
	t.Helper()
	m := fstest.MapFS{}
	for name, text := range files {
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	tr, err := load(m)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}
