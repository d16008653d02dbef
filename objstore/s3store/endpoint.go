package s3store

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"coffer/objstore"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	smithyauth "github.com/aws/smithy-go/auth"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// endpoint is where the requests for a bucket go, and the region that they are
// signed for.
type endpoint struct {
	url    url.URL
	region string
}

// fipsRegion takes out of the name of a region that it means the FIPS endpoints
// of another.
var fipsRegion = strings.NewReplacer("-fips-", "-", "fips-", "", "-fips", "")

// endpointOf asks the SDK where a bucket is: the rules for partitions, dual
// stack, FIPS and names that cannot be part of a host are many.
func (s *Store) endpointOf(bucket, region string) (endpoint, error) {
	o := s.client(bucket, region).Options()
	region = fipsRegion.Replace(o.Region)
	at, err := o.EndpointResolverV2.ResolveEndpoint(context.Background(), s3.EndpointParameters{
		Bucket: &bucket, Region: &region, Endpoint: o.BaseEndpoint, ForcePathStyle: &o.UsePathStyle,
		UseFIPS:      aws.Bool(region != o.Region || o.EndpointOptions.UseFIPSEndpoint == aws.FIPSEndpointStateEnabled),
		UseDualStack: aws.Bool(o.EndpointOptions.UseDualStackEndpoint == aws.DualStackEndpointStateEnabled),
		Accelerate:   &o.UseAccelerate,
	}.WithDefaults())
	if err != nil {
		return endpoint{}, err
	}
	if auth, ok := smithyauth.GetAuthOptions(&at.Properties); ok {
		// By its full name or without "aws.auth#"; there are others for other kinds of buckets.
		i := slices.IndexFunc(auth, func(o *smithyauth.Option) bool { return strings.HasSuffix(o.SchemeID, "sigv4") })
		if i < 0 {
			return endpoint{}, fmt.Errorf("%w: the bucket %q takes other signatures", objstore.Unsupported, bucket)
		}
		signed, _ := smithyhttp.GetSigV4SigningRegion(&auth[i].SignerProperties)
		region = cmp.Or(signed, region)
	}
	u := at.URI
	if p := u.Port(); u.Scheme == "https" && p == "443" || u.Scheme == "http" && p == "80" {
		u.Host = strings.TrimSuffix(u.Host, ":"+p) // servers leave it out when they check the signature
	}
	return endpoint{u, region}, nil
}
