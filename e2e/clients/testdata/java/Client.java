import com.azure.core.credential.TokenCredential;
import com.azure.core.credential.TokenRequestContext;
import com.azure.identity.DefaultAzureCredentialBuilder;
import com.azure.identity.ManagedIdentityCredential;
import com.azure.identity.ManagedIdentityCredentialBuilder;
import com.azure.json.JsonProviders;
import com.microsoft.aad.msal4j.ManagedIdentityApplication;
import com.microsoft.aad.msal4j.ManagedIdentityId;
import com.microsoft.aad.msal4j.ManagedIdentityParameters;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.StringWriter;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;

/**
 * Asks for a token for each resource on standard input by one client of Java's.
 *
 * <p>Usage: Client CLIENT SELECTOR [VALUE], or Client versions. Each line of input gets
 * one line of JSON: a token or an error. Status 3: the client has no such selector.
 */
final class Client {
  /** Gets a token for a resource. */
  interface Asker {
    String ask(String resource) throws Exception;
  }

  private static final String IDENTITY = "com.azure:azure-identity";
  private static final String DEFAULT = IDENTITY + ", DefaultAzureCredential";
  private static final String MSAL = "com.microsoft.azure:msal4j";

  private static final class Unsupported extends RuntimeException {}

  private static Asker identity(String selector, String value) {
    var builder = new ManagedIdentityCredentialBuilder();
    switch (selector) {
      case "client_id" -> builder.clientId(value);
      case "object_id" -> builder.objectId(value);
      case "resource_id" -> builder.resourceId(value);
      default -> { }
    }
    return asker(builder.build());
  }

  private static Asker chain(String selector, String value) {
    var builder = new DefaultAzureCredentialBuilder();
    switch (selector) {
      case "client_id" -> builder.managedIdentityClientId(value);
      case "resource_id" -> builder.managedIdentityResourceId(value);
      case "object_id" -> throw new Unsupported();
      default -> { }
    }
    return asker(builder.build());
  }

  private static Asker asker(TokenCredential credential) {
    return resource ->
        credential.getTokenSync(new TokenRequestContext().addScopes(resource + "/.default")).getToken();
  }

  private static Asker msal(String selector, String value) {
    var id = switch (selector) {
      case "client_id" -> ManagedIdentityId.userAssignedClientId(value);
      case "object_id" -> ManagedIdentityId.userAssignedObjectId(value);
      case "resource_id" -> ManagedIdentityId.userAssignedResourceId(value);
      default -> ManagedIdentityId.systemAssigned();
    };
    var client = ManagedIdentityApplication.builder(id).build();
    return resource -> {
      try {
        var parameters = ManagedIdentityParameters.builder(resource).build();
        return client.acquireTokenForManagedIdentity(parameters).get().accessToken();
      } catch (ExecutionException fault) {
        throw (Exception) fault.getCause();
      }
    };
  }

  private static Asker client(String name, String selector, String value) {
    return switch (name) {
      case IDENTITY -> identity(selector, value);
      case DEFAULT -> chain(selector, value);
      case MSAL -> msal(selector, value);
      default -> throw new IllegalArgumentException(name);
    };
  }

  private static Map<String, String> versions() {
    var identity = ManagedIdentityCredential.class.getPackage().getImplementationVersion();
    var msal = ManagedIdentityApplication.class.getPackage().getImplementationVersion();
    return new TreeMap<>(Map.of(IDENTITY, identity, DEFAULT, identity, MSAL, msal));
  }

  /** What a log would show, where exceptions go with their causes. */
  private static String words(Throwable fault) {
    var words = fault.toString();
    for (var cause = fault.getCause(); cause != null; cause = cause.getCause()) {
      words += "; caused by " + cause;
    }
    return words;
  }

  private static void print(Map<String, String> reply) throws IOException {
    var line = new StringWriter();
    try (var json = JsonProviders.createWriter(line)) {
      json.writeMap(reply, (writer, text) -> writer.writeString(text));
    }
    System.out.println(line);
  }

  public static void main(String[] args) throws IOException {
    if (args[0].equals("versions")) {
      print(versions());
      return;
    }
    Asker asker = null;
    Exception broken = null;
    try {
      asker = client(args[0], args[1], args.length > 2 ? args[2] : "");
    } catch (Unsupported none) {
      System.exit(3);
    } catch (Exception fault) {
      broken = fault;
    }
    var lines = new BufferedReader(new InputStreamReader(System.in));
    for (var line = lines.readLine(); line != null; line = lines.readLine()) {
      try {
        if (broken != null) {
          throw broken;
        }
        print(Map.of("token", asker.ask(line)));
      } catch (Exception fault) { // whatever an app would see
        print(Map.of("error", words(fault)));
      }
    }
    System.exit(0); // the clients' own threads would keep it
  }
}
