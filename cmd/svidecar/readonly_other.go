//go:build !unix

package main

func isReadOnlyFileSystem(error) bool { return false }
