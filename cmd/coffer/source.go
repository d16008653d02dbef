package main

import (
	"fmt"
	"strings"
)

// source names what is mounted: every bucket of the account (the zero value),
// one bucket, or the keys of one bucket below a prefix.
type source struct {
	Bucket string
	// Prefix has no leading and no trailing slash.
	Prefix string
}

// parseSource parses "s3://", "s3://BUCKET" and "s3://BUCKET/PREFIX".
func parseSource(s string) (source, error) {
	rest, ok := strings.CutPrefix(s, "s3://")
	if !ok {
		return source{}, fmt.Errorf("source %q does not start with s3://", s)
	}
	bucket, prefix, _ := strings.Cut(rest, "/")
	if bucket == "" && prefix != "" {
		return source{}, fmt.Errorf("source %q names a prefix and no bucket", s)
	}
	if strings.ContainsAny(bucket, " \t\r\n\x00,:@\\") {
		return source{}, fmt.Errorf("source %q: bad bucket name", s)
	}
	prefix = strings.TrimSuffix(prefix, "/")
	if strings.HasPrefix(prefix, "/") || strings.HasSuffix(prefix, "/") || strings.Contains(prefix, "//") || strings.ContainsRune(prefix, 0) {
		return source{}, fmt.Errorf("source %q: a prefix with an empty part cannot be a directory", s)
	}
	for part := range strings.SplitSeq(prefix, "/") {
		if part == "." || part == ".." {
			return source{}, fmt.Errorf("source %q: a prefix with the part %q cannot be a directory", s, part)
		}
	}
	return source{Bucket: bucket, Prefix: prefix}, nil
}

// String returns the form that parseSource takes.
func (s source) String() string {
	if s.Prefix == "" {
		return "s3://" + s.Bucket
	}
	return "s3://" + s.Bucket + "/" + s.Prefix
}

// parseBucketArg parses "s3://BUCKET" where a bucket is required.
func parseBucketArg(s string) (string, error) {
	src, err := parseSource(s)
	if err != nil {
		return "", err
	}
	if src.Bucket == "" || src.Prefix != "" {
		return "", fmt.Errorf("%q is not of the form s3://BUCKET", s)
	}
	return src.Bucket, nil
}
