import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;

/** Writes what a URL holds to standard output, by java.net.http. */
public class WithHttpClient {
    public static void main(String[] arguments) throws Exception {
        var request = HttpRequest.newBuilder(URI.create(arguments[0])).build();
        var response = HttpClient.newHttpClient().send(request, BodyHandlers.ofByteArray());
        if (response.statusCode() != 200) throw new IllegalStateException("answered with " + response.statusCode());
        System.out.write(response.body());
        System.out.flush();
    }
}
