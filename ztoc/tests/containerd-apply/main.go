// Unpacks layers as containerd's overlayfs snapshotter has them unpacked: the oracle of tests/it/tree.rs.
//
// Arguments: a tar and the directory to unpack it into, and so on in pairs. For each pair one line is written: the tar's
// name and "ok", or the error.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/pkg/archive"
)

func main() {
	for i := 1; i+1 < len(os.Args); i += 2 {
		if err := apply(os.Args[i], os.Args[i+1]); err != nil {
			fmt.Printf("%s: %q\n", os.Args[i], err)
		} else {
			fmt.Printf("%s: ok\n", os.Args[i])
		}
	}
}

func apply(layer, dir string) error {
	file, err := os.Open(layer)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = archive.Apply(context.Background(), dir, file, archive.WithConvertWhiteout(archive.OverlayConvertWhiteout))
	return err
}
