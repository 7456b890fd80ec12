package main

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"
)

// TestChartSchema holds that the schema knows every value, and no other, and wants
// them all: helm forgets the default of one that is set to null.
func TestChartSchema(t *testing.T) {
	var values map[string]any
	if err := yaml.Unmarshal(must(os.ReadFile(filepath.Join(chart, "values.yaml"))), &values); err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := json.Unmarshal(must(os.ReadFile(filepath.Join(chart, "values.schema.json"))), &schema); err != nil {
		t.Fatal(err)
	}
	delete(schema["properties"].(map[string]any), "global") // Helm's own
	checkSchema(t, "values", values, schema)
}

func checkSchema(t *testing.T, path string, values, schema map[string]any) {
	properties, nested := schema["properties"].(map[string]any)
	if !nested {
		return // a part of a pod, which the API server judges
	}
	if schema["additionalProperties"] != false {
		t.Errorf("%s: the schema takes any key", path)
	}
	var required []string
	list, _ := schema["required"].([]any)
	for _, key := range list {
		required = append(required, key.(string))
	}
	slices.Sort(required)
	if diff := cmp.Diff(slices.Sorted(maps.Keys(values)), required); diff != "" {
		t.Errorf("%s: what the schema requires (-values +required):\n%s", path, diff)
	}
	for key := range properties {
		if _, found := values[key]; !found {
			t.Errorf("%s.%s is in the schema and not in values.yaml", path, key)
		}
	}
	for key, value := range values {
		below, known := properties[key].(map[string]any)
		if !known {
			t.Errorf("%s.%s is in values.yaml and not in the schema", path, key)
		}
		if values, ok := value.(map[string]any); ok && known {
			checkSchema(t, path+"."+key, values, below)
		}
	}
}
