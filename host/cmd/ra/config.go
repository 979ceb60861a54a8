package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newConfig(g *globals) *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Check or print the configuration",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(&cobra.Command{
		Use:   "check",
		Short: "Check the configuration file and the environment, and load the plugins that they choose",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := g.load(nil)
			if err != nil {
				return err
			}
			if err := checkPlugins(c.Context(), cfg, g.logger()); err != nil {
				return err
			}
			fmt.Fprintf(g.out, "ok: %s\n", describeConfig(cfg))
			return nil
		},
	}, &cobra.Command{
		Use:   "print",
		Short: "Print the configuration in force, as TOML, with where each value came from",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := g.load(nil)
			if err != nil {
				return err
			}
			fmt.Fprint(g.out, cfg.Print())
			return nil
		},
	})
	return c
}
