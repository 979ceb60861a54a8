// Package config is the schema of raconfig.toml: its defaults, its checks and
// its error messages.
//
// Every key can also be set by the environment: RA_ and the key's path in
// upper case with underscores, so RA_SEARCH_PLUGIN sets search.plugin. A flag
// beats the environment, the environment the file, and the file the default.
// A key that the schema does not know is an error that names its line and the
// nearest known key. Only a [[plugin]] entry has no environment form.
package config
