package s3store

import (
	"io"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

func BenchmarkFloor(b *testing.B) {
	bk := benchBucket(b).(*bucket)
	s := bk.s
	for _, mode := range []string{"plain", "signed", "signed+do"} {
		b.Run(mode, func(b *testing.B) {
			signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
			cr := aws.Credentials{AccessKeyID: os.Getenv("AWS_ACCESS_KEY_ID"), SecretAccessKey: os.Getenv("AWS_SECRET_ACCESS_KEY")}
			c := &httpClient{transport: s.transport, patience: s.patience}
			clientCPU(b)
			for b.Loop() {
				req, _ := http.NewRequestWithContext(b.Context(), "HEAD", s.endpoint+"/bench/absent", nil)
				if mode != "plain" {
					req.Header.Set("X-Amz-Content-Sha256", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
					if err := signer.SignHTTP(b.Context(), cr, req, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "s3", s.region, time.Now()); err != nil {
						b.Fatal(err)
					}
				}
				var resp *http.Response
				var err error
				if mode == "signed+do" {
					resp, err = c.Do(req)
				} else {
					resp, err = s.transport.RoundTrip(req)
				}
				if err != nil {
					b.Fatal(err)
				}
				if mode != "plain" && resp.StatusCode != 404 {
					b.Fatal(resp.Status)
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
}
