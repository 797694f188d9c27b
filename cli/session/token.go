package session

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/xebec-project/xebec/cli/exit"
	"github.com/xebec-project/xebec/internal/cliconfig"
	"github.com/xebec-project/xebec/internal/rpc"
)

// bearer sends a context's token with every call, as it is at that time.
type bearer struct{ t *cliconfig.Context }

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(ctx context.Context, uri ...string) (map[string]string, error) {
	token, err := tokenOf(b.t)
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	return rpc.Bearer(token).GetRequestMetadata(ctx, uri...)
}

// RequireTransportSecurity implements credentials.PerRPCCredentials: a token is never sent in the
// clear.
func (bearer) RequireTransportSecurity() bool { return true }

// tokenOf returns the token of a context that has one.
func tokenOf(t *cliconfig.Context) (string, error) {
	if t.Token != "" {
		return t.Token, nil
	}
	data, err := os.ReadFile(t.TokenFile)
	if err != nil {
		return "", exit.FileError("read token", err)
	}
	token := strings.TrimSpace(string(data))
	if err := checkToken(token); err != nil {
		return "", fmt.Errorf("token file %s: %w", t.TokenFile, err)
	}
	return token, nil
}

// checkToken refuses what can't be a token, before it is sent anywhere: most often it is the name
// of a file.
func checkToken(token string) error {
	if strings.Count(token, ".") != 2 || strings.ContainsAny(token, " \t\r\n/") {
		return errors.New("not a token: want a JSON Web Token, as 'xebec create token SERVICEACCOUNT' prints, or tokenFile in the context")
	}
	return nil
}
